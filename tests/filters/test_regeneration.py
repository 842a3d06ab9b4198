"""Regeneration tells what was left intact from what was drawn anew, whatever was edited, and rejects nothing for it."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene, shifted, verdicts, with_object

from crispedit.filters.regeneration import Regeneration

SOURCE = scene(21)
EDITED, MASK = with_object(SOURCE, 150, 120, 200)


def redrawn(image, strength=1.0):
    """As an autoencoder gives it back: softer, with a grain of its own, a shade off."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 12, image.shape), (0, 0), 1.5) * 3
    drawn = cv2.GaussianBlur(image, (0, 0), 1.2) + strength * (noise + np.array([3, 2, -2]))
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def measured(edited, mask=None, quality=95):
    return Regeneration().measure([pair(SOURCE, edited, mask, quality)])[0]


@pytest.mark.parametrize("mask", [MASK, None])
@pytest.mark.parametrize("quality", [95, 85])
def test_the_rest_was_left_intact(mask, quality):
    found = measured(EDITED, mask, quality)
    assert found["regime"] == "exact"
    assert found["noise_floor"] < 0.5


def test_drawn_anew_is_told_and_never_rejected():
    weak, strong = measured(redrawn(EDITED, 0.6)), measured(redrawn(EDITED, 1.0))
    assert weak["regime"] == strong["regime"] == "regenerated"
    assert 0.5 < weak["noise_floor"] < strong["noise_floor"]
    assert verdicts(Regeneration(), pair(SOURCE, redrawn(EDITED))) == []


def test_a_fraction_of_a_pixel_is_not_taken_for_redrawing():
    assert measured(shifted(EDITED, 0.6, 0.4))["noise_floor"] < 0.5 * measured(redrawn(EDITED))["noise_floor"]


def test_nothing_was_left_as_it_was():
    assert measured(255 - SOURCE)["regime"] == "global"
    assert measured(scene(77))["regime"] == "global"
