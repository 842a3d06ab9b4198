"""Upscaled, on rendered macro photographs and their enlargements."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from crispedit.filters.upscaled import Upscaled, detail_fraction
from crispedit.images import decode_jpeg, encode_jpeg, encode_mask
from crispedit.record import Image, Sample

SIDE = 512
RESAMPLING = {
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}


@functools.cache
def macro(seed: int, side: int = SIDE) -> Image:
    """A subject in focus (texture whose power falls as f⁻³, and edges) before a background far out of focus."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) + 1 / side
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) * frequency**-1.5
    texture = np.fft.irfft2(spectrum, s=(side, side))
    texture = 128 + 40 * texture / texture.std()
    # Drawn at four times the size and averaged down, as a lens and a sensor do it.
    edges = np.zeros((4 * side, 4 * side), np.uint8)
    for _ in range(12):
        points = rng.integers(side, 3 * side, (3, 2))
        cv2.fillPoly(edges, [points.astype(np.int32)], int(rng.integers(60, 256)))
    edges = cv2.resize(edges, (side, side), interpolation=cv2.INTER_AREA)
    sharp = np.clip(texture * 0.4 + edges * 0.6, 0, 255)
    blurred = cv2.GaussianBlur(np.roll(sharp, side // 2, axis=1), (0, 0), 15)
    focus = np.zeros((side, side), np.float32)
    cv2.circle(focus, (side // 2, side // 2), side // 4, 1.0, -1)
    focus = cv2.GaussianBlur(focus, (0, 0), 4)
    grey = sharp * focus + blurred * (1 - focus) + rng.normal(0, 0.7, (side, side))
    return np.clip(np.dstack([grey, grey * 0.8, grey * 0.6]), 0, 255).astype(np.uint8)


def resized(image: Image, factor: float, method: str) -> Image:
    side = round(len(image) * factor)
    return np.asarray(Pillow.fromarray(image).resize((side, side), RESAMPLING[method]))


def enlarged(seed: int, factor: float, method: str, side: int = SIDE) -> Image:
    """A picture of `side` pixels that was `factor` times smaller."""
    small = resized(macro(seed, side), 1 / factor, "lanczos")
    return np.asarray(Pillow.fromarray(small).resize((side, side), RESAMPLING[method]))


def recompressed(image: Image, quality: int) -> Image:
    return decode_jpeg(encode_jpeg(image, quality))


def fraction(image: Image) -> float | None:
    (scores,) = Upscaled().measure([Sample("k", encode_jpeg(image))])
    return scores["detail_fraction"]


def verdict(image: Image) -> str | None:
    return Upscaled.bounds["detail_fraction"].verdict(fraction(image))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quality", [95, 85, 75])
def test_a_macro_with_a_blurred_background_passes(seed: int, quality: int):
    image = recompressed(macro(seed), quality)
    assert fraction(image) == 1
    assert verdict(image) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", RESAMPLING)
@pytest.mark.parametrize("factor", [2, 2.5, 4])
def test_its_enlargement_fails(seed: int, method: str, factor: float):
    assert verdict(enlarged(seed, factor, method)) == "low"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", RESAMPLING)
def test_recompression_does_not_hide_it(seed: int, method: str):
    assert verdict(recompressed(enlarged(seed, 2, method), 85)) == "low"


@pytest.mark.parametrize("seed", range(4))
def test_scaling_part_of_the_way_back_does_not_hide_it(seed: int):
    small = resized(macro(seed), 1 / 3, "lanczos")
    large = np.asarray(Pillow.fromarray(small).resize((800, 800), RESAMPLING["bicubic"]))
    assert verdict(np.asarray(Pillow.fromarray(large).resize((SIDE, SIDE), RESAMPLING["lanczos"]))) == "low"


@pytest.mark.parametrize("seed", range(4))
def test_a_photograph_scaled_down_passes(seed: int):
    assert verdict(resized(macro(seed, 1024), 0.55, "lanczos")) is None


@pytest.mark.parametrize(("factor", "least", "most"), [(2, 0.35, 0.65), (1.5, 0.5, 0.85)])
def test_the_fraction_is_about_the_true_one(factor: float, least: float, most: float):
    found = [fraction(enlarged(seed, factor, "lanczos")) for seed in range(4)]
    assert least <= np.median(found) <= most


def test_grain_tells_a_shaken_photograph_from_an_enlargement():
    rng = np.random.default_rng(5)
    shaken = cv2.GaussianBlur(macro(1), (0, 0), 1.5).astype(float)
    grain = np.dstack([rng.normal(0, 4, (SIDE, SIDE))] * 3)
    for strength in (0.5, 1.0):
        assert verdict(np.clip(shaken + strength * grain, 0, 255).astype(np.uint8)) is None
    assert verdict(np.clip(shaken, 0, 255).astype(np.uint8)) == "low"


def test_a_sharp_caption_does_not_vouch_for_an_enlargement():
    image = enlarged(2, 2, "bicubic", 1024).copy()
    cv2.putText(image, "(c) 2026", (12, 1012), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    assert verdict(image) == "low"


def test_nothing_to_measure_is_unknown():
    assert fraction(np.full((SIDE, SIDE, 3), 90, np.uint8)) is None
    ramp = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))
    assert fraction(np.dstack([cv2.GaussianBlur(ramp, (0, 0), 20)] * 3)) is None
    assert fraction(macro(0)[:40, :40]) is None
    assert fraction(macro(0)[:1, :1]) is None


def test_of_a_pair_it_is_what_the_edited_image_kept_of_its_source():
    good, poor = encode_jpeg(macro(0)), encode_jpeg(enlarged(0, 2, "bicubic"))
    scores = Upscaled().measure([Sample("a", good, poor), Sample("b", poor, good), Sample("c", poor, poor)])
    assert scores[0]["detail_fraction"] < 0.75
    assert [score["detail_fraction"] for score in scores[1:]] == [1, 1]


def test_taking_away_the_only_sharp_thing_blurs_nothing():
    source = macro(1, 1024)
    soft = cv2.GaussianBlur(source, (0, 0), 1.5)
    mask = np.zeros(source.shape[:2], bool)
    mask[200:824, 200:824] = True
    source = np.where(mask[..., None], source, soft)
    (scores,) = Upscaled().measure([Sample("a", encode_jpeg(source), encode_jpeg(soft), encode_mask(mask))])
    assert fraction(soft) < 0.8
    assert scores["detail_fraction"] is None


def test_turning_the_image_changes_nothing():
    grey = cv2.cvtColor(enlarged(3, 2, "bicubic"), cv2.COLOR_RGB2GRAY)
    assert detail_fraction(np.ascontiguousarray(grey.T)) == pytest.approx(detail_fraction(grey), abs=0.08)
