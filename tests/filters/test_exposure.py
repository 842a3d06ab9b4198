"""Exposure finds the tone that an edit gave the whole image, whatever else the edit did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_scenes import pair, scene, verdicts, with_object

from crispedit.filters.exposure import Exposure

SOURCE = scene(14)
EDITED, MASK = with_object(SOURCE, 150, 100, 260)


def toned(image, gain=(1.0, 1.0, 1.0), offset=(0, 0, 0)):
    return np.clip(np.rint(image * np.array(gain) + np.array(offset)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mask", [MASK, None])
def test_an_edit_in_the_photograph_s_own_tone_passes(mask):
    sample = pair(SOURCE, EDITED, mask)
    assert verdicts(Exposure(), sample) == []
    scores = Exposure().measure([sample])[0]
    assert scores["drift"] < 0.003
    assert scores["cast"] < 0.003


@pytest.mark.parametrize("mask", [MASK, None])
def test_a_darker_image_drifts_and_a_slightly_darker_one_passes(mask):
    assert "drift:high" in verdicts(Exposure(), pair(SOURCE, toned(EDITED, gain=(0.85,) * 3), mask))
    assert verdicts(Exposure(), pair(SOURCE, toned(EDITED, gain=(0.99,) * 3), mask)) == []


@pytest.mark.parametrize("mask", [MASK, None])
@pytest.mark.parametrize("offset", [(14, 0, 0), (0, -14, 0), (0, 12, 12)])
def test_a_cast_is_a_cast(mask, offset):
    assert "cast:high" in verdicts(Exposure(), pair(SOURCE, toned(EDITED, offset=offset), mask))


@settings(max_examples=10)
@given(st.floats(-20, 20))
def test_drift_is_the_mean_change_of_brightness(levels):
    grey = np.clip(SOURCE * 0.6 + 50, 0, 255).astype(np.uint8)  # away from clipping
    scores = Exposure().measure([pair(grey, toned(grey, offset=(levels,) * 3))])[0]
    assert scores["drift"] == pytest.approx(abs(levels) / 255, abs=0.004)
    assert scores["cast"] < 0.004


def test_a_large_edit_is_not_taken_for_the_tone():
    edited = SOURCE.copy()
    edited[:, :350] = toned(SOURCE[:, :350], gain=(0.3, 0.5, 0.9), offset=(90, 0, 20))  # 55 % of the image
    assert verdicts(Exposure(), pair(SOURCE, edited)) == []


def test_what_no_tone_explains_is_null():
    assert Exposure().measure([pair(SOURCE, scene(77))])[0]["drift"] is None
    style = pair(SOURCE, 255 - SOURCE, np.ones(MASK.shape, bool))
    assert set(Exposure().measure([style])[0].values()) == {None}


def strengthened(image, contrast=1.0, saturation=1.0):
    luma = image.mean(axis=2, keepdims=True)
    return toned((luma - luma.mean()) * contrast + luma.mean() + (image - luma) * saturation)


UNCLIPPED = toned(np.clip(SOURCE, 40, 215), gain=(0.8,) * 3, offset=(25,) * 3)


@pytest.mark.parametrize(("contrast", "saturation"), [(1.1, 1.0), (1.0, 1.2), (1.1, 1.2), (0.9, 0.8)])
def test_contrast_and_saturation_say_how_much_more(contrast, saturation):
    scores = Exposure().measure([pair(UNCLIPPED, strengthened(UNCLIPPED, contrast, saturation))])[0]
    assert scores["contrast"] == pytest.approx(contrast - 1, abs=0.03)
    assert scores["saturation"] == pytest.approx(saturation - 1, abs=0.03)


def test_without_colour_or_light_and_shade_there_is_nothing_to_strengthen():
    grey, flat = strengthened(UNCLIPPED, saturation=0), np.full_like(SOURCE, (120, 90, 60))
    assert Exposure().measure([pair(grey, grey)])[0]["saturation"] is None
    assert Exposure().measure([pair(grey, grey)])[0]["contrast"] == pytest.approx(0, abs=0.01)
    assert Exposure().measure([pair(flat, flat)])[0]["contrast"] is None
