"""Defects: every one is made the same again, changes what it says, and says nothing where it cannot be shown."""

from dataclasses import asdict

import cv2
import numpy as np
import pytest

from crispedit.compositor.landscape import landscape
from crispedit.pipelines.calibration import defects
from crispedit.pipelines.calibration.defects import SEMANTIC, STRUCTURAL, Good
from crispedit.record import Sample

SIDE = 320
SOURCE = landscape(5, SIDE, SIDE, "meadow")
MASK = np.zeros((SIDE, SIDE), bool)
MASK[60:130, 80:150] = True
EDITED = SOURCE.copy()
EDITED[MASK] = (200, 30, 40)
GOOD = Good(SOURCE, EDITED, MASK)
WHOLE = Good(SOURCE, 255 - SOURCE, np.ones_like(MASK))


def made(name, good=GOOD, seed=1):
    return STRUCTURAL[name](good, np.random.default_rng(seed))


@pytest.mark.parametrize("name", list(STRUCTURAL))
def test_a_defect_follows_from_its_seed_and_differs_from_the_good_pair(name):
    first, again = made(name), made(name)
    assert first is not None
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape != EDITED.shape or (first != EDITED).any()


@pytest.mark.parametrize("name", ["no_op", "re_encoded", "noise", "speck"])
def test_what_should_be_unchanged_hardly_differs_from_the_source(name):
    edited = made(name)
    assert cv2.absdiff(SOURCE, edited).mean() < 12
    assert (cv2.absdiff(SOURCE, edited).max(axis=2) > 60).mean() < 0.02


@pytest.mark.parametrize(
    "name", ["colour_cast", "exposure_drift", "shift", "blurred", "leakage", "regenerated", "watermark"]
)
def test_what_is_judged_by_what_was_left_alone_needs_something_left_alone(name):
    assert made(name, WHOLE) is None


@pytest.mark.parametrize("seed", range(5))
def test_leakage_stays_away_from_the_edit(seed):
    leaking = made("leakage", seed=seed)
    changed = cv2.absdiff(leaking, EDITED).max(axis=2) > 12
    assert 0.01 < changed.mean() < 0.15
    assert not (changed & MASK).any()


@pytest.mark.parametrize("seed", range(5))
def test_a_squeezed_image_is_smaller_along_one_axis(seed):
    height, width = made("squeezed", seed=seed).shape[:2]
    assert (height == SIDE) != (width == SIDE)
    assert 0.91 < height * width / SIDE**2 < 0.99


def fields(name):
    parts = ("key", "source_jpeg", "edited_jpeg", "mask_png", "instruction", "source_caption", "target_caption")
    return Sample(**{part: f"{name} {part}" for part in parts}, category="add")


def test_semantic_defects_mix_two_pairs_up_and_change_nothing_else():
    own, other = fields("own"), fields("other")
    changed = {
        name: {part: value for part, value in asdict(make(own, other)).items() if getattr(own, part) != value}
        for name, make in SEMANTIC.items()
    }
    images = ("source_jpeg", "edited_jpeg", "mask_png")
    assert changed == {
        "swapped": {"source_jpeg": "own edited_jpeg", "edited_jpeg": "own source_jpeg"},
        "wrong_edit": {part: f"other {part}" for part in images},
        "wrong_caption": {"target_caption": "other target_caption"},
        "wrong_instruction": {"instruction": "other instruction"},
    }
    assert [name for name, make in SEMANTIC.items() if make(own, None) is not None] == ["swapped"]


def test_a_near_copy_is_nearly_the_same():
    copy = defects.near_copy(SOURCE)
    assert copy.shape[0] == round(0.98 * SIDE)
    again = cv2.resize(copy, (SIDE, SIDE))
    assert cv2.absdiff(again, SOURCE).mean() < 12
