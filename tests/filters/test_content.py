"""Content, on blank, monotone and two-tone images and on their nearest neighbours that show something."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from bad_inputs import photo

from crispedit.filters.content import Content
from crispedit.images import encode_jpeg
from crispedit.record import Image, Sample


def reasons(image: Image) -> dict[str, str]:
    """Which default bounds the image fails, and on which side."""
    (scores,) = Content().measure([Sample("k", encode_jpeg(image))])
    found = {name: bound.verdict(scores[name]) for name, bound in Content.bounds.items()}
    return {name: side for name, side in found.items() if side}


def noisy(image: np.ndarray, deviation: float) -> Image:
    grain = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def flat(*colour: int) -> Image:
    return np.full((240, 320, 3), colour, np.uint8)


def page() -> Image:
    """Black letters on white."""
    image = flat(255, 255, 255)
    for line in range(20, 240, 30):
        cv2.putText(image, "what is written here", (10, line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    return image


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 160, 40)])
def test_a_blank_image_fails(colour: tuple[int, int, int]):
    assert reasons(flat(*colour)) == {"entropy": "low", "dominant_share": "high"}


def test_grain_does_not_hide_that_a_wall_is_blank():
    assert reasons(noisy(flat(128, 120, 110), 4)) == {"dominant_share": "high"}


def test_a_slow_gradient_within_one_colour_is_monotone():
    ramp = np.linspace(100, 120, 320).astype(np.uint8)
    assert reasons(np.dstack([np.tile(ramp, (240, 1))] * 3)) == {"dominant_share": "high"}


def test_a_page_of_text_fails_and_the_page_lying_on_a_desk_passes():
    assert "entropy" in reasons(page())
    desk = photo("desk", 320, 240)
    desk[60:180, 80:240] = page()[60:180, 80:240]
    assert reasons(desk) == {}


def test_a_small_subject_before_one_colour_passes_and_a_speck_fails():
    studio = noisy(flat(240, 240, 240), 2)
    speck = studio.copy()
    speck[100:130, 100:140] = photo("speck", 40, 30)
    assert reasons(speck) == {"dominant_share": "high"}
    subject = studio.copy()
    subject[40:200, 60:260] = photo("subject", 200, 160)
    assert reasons(subject) == {}


@pytest.mark.parametrize("seed", range(5))
def test_photographs_pass(seed: int):
    assert reasons(photo(f"photograph {seed}", 320, 240)) == {}


def test_scores_have_their_ranges():
    (scores,) = Content().measure([Sample("k", encode_jpeg(photo("ranges", 64, 48)))])
    assert 0 <= scores["entropy"] <= 8
    assert 0 <= scores["dominant_share"] <= 1
    assert Content().measure([]) == []


def test_one_pixel_is_blank():
    assert reasons(flat(1, 2, 3)[:1, :1]) == {"entropy": "low", "dominant_share": "high"}
