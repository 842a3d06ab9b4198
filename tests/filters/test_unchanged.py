"""Unchanged rejects what nobody would see and keeps the smallest real edit."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_scenes import pair, scene, verdicts, with_object

from crispedit.filters.unchanged import Unchanged

SOURCE = scene(1)
AREA = SOURCE.shape[0] * SOURCE.shape[1]
REJECTED = ["largest_region_fraction:low"]


def test_a_no_op_measures_zero():
    assert Unchanged().measure([pair(SOURCE, SOURCE)]) == [
        {"changed_fraction": 0.0, "largest_region_fraction": 0.0, "mean_abs": 0.0}
    ]


@pytest.mark.parametrize("quality", [95, 85, 75])
def test_a_re_encoding_is_unchanged(quality):
    assert verdicts(Unchanged(), pair(SOURCE, SOURCE, quality=quality)) == REJECTED


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
def test_faint_noise_is_unchanged_and_does_not_wrap(seed, levels):
    """A uint8 subtraction would turn -1 into 255 and call this a third of the image."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, SOURCE.shape)
    noisy = np.clip(SOURCE.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    scores = Unchanged().measure([pair(SOURCE, noisy)])[0]
    assert scores["changed_fraction"] == 0
    assert scores["mean_abs"] < 0.01


@pytest.mark.parametrize("place", [(40, 50), (300, 200), (520, 400)])
def test_a_speck_fails_and_a_small_object_passes(place):
    speck, _ = with_object(SOURCE, *place, round((0.0003 * AREA * 4 / np.pi) ** 0.5))
    small, _ = with_object(SOURCE, *place, round((0.003 * AREA * 4 / np.pi) ** 0.5))
    assert verdicts(Unchanged(), pair(SOURCE, speck)) == REJECTED
    assert verdicts(Unchanged(), pair(SOURCE, small)) == []


def test_the_fractions_are_those_of_the_image():
    edited, mask = with_object(SOURCE, 100, 100, 200)
    scores = Unchanged().measure([pair(SOURCE, edited)])[0]
    assert scores["largest_region_fraction"] == pytest.approx(mask.mean(), rel=0.1)
    two, _ = with_object(edited, 400, 300, 100)
    more = Unchanged().measure([pair(SOURCE, two)])[0]
    assert more["largest_region_fraction"] == scores["largest_region_fraction"]
    assert more["changed_fraction"] > scores["changed_fraction"]


def test_a_resized_no_op_is_still_unchanged():
    smaller = cv2.resize(SOURCE, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    assert Unchanged().measure([pair(SOURCE, smaller)])[0]["changed_fraction"] < 0.05
    edited, _ = with_object(smaller, 100, 100, 150)
    assert verdicts(Unchanged(), pair(SOURCE, edited)) == []
