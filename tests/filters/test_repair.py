"""Repair: a pair is aligned, cropped to what both images show, brought to one size, and freed of drift."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_scenes import pair, scene, verdicts, warped, with_object, zoomed

from crispedit import repair
from crispedit.filters.alignment import Alignment

SOURCE = scene(3)
EDITED, MASK = with_object(SOURCE, 180, 120, 220)


@settings(max_examples=8)
@given(st.floats(-15, 15), st.floats(-15, 15), st.floats(0.97, 1.03), st.floats(-1, 1))
def test_both_images_are_cropped_to_their_overlap(x, y, scale, degrees):
    affine = cv2.getRotationMatrix2D((320, 256), degrees, scale)
    affine[:, 2] += x, y
    if np.hypot(x, y) < 2:
        affine[:, 2] += 3
    laid = repair.to_overlap(SOURCE, warped(EDITED, affine), MASK)
    assert isinstance(laid, repair.Repaired)
    left, top, width, height = laid.crop
    assert laid.source.shape == laid.edited.shape == (height, width, 3)
    assert laid.mask.shape == (height, width)
    there = np.s_[top : top + height, left : left + width]
    np.testing.assert_array_equal(laid.source, SOURCE[there])
    np.testing.assert_array_equal(laid.mask, MASK[there])
    assert cv2.absdiff(laid.edited, EDITED[there]).mean() < 8  # to its border: nothing was filled in
    np.testing.assert_allclose(np.array(laid.transform)[:, :2], affine[:, :2], atol=0.003)
    np.testing.assert_allclose(
        np.array(laid.transform) @ [0, 0, 1], affine @ [left, top, 1], atol=0.6
    )  # where the crop's corner lies in the edited image
    assert verdicts(Alignment(), pair(laid.source, laid.edited)) == []


def test_what_needs_no_repair_or_has_none():
    assert repair.to_overlap(SOURCE, EDITED) is None
    assert repair.to_overlap(SOURCE, scene(98)) == repair.NO_MOTION
    assert repair.to_overlap(SOURCE, zoomed(EDITED, 1.15, 1.0)) == repair.NO_MOTION
    half = cv2.resize(EDITED[128:384, 160:480], (640, 512), interpolation=cv2.INTER_CUBIC)
    assert isinstance(repair.to_overlap(SOURCE, half), str)


def test_another_size_and_shape():
    # A middle crop of another aspect at the editor's own size: stretched by a plain resize, a similarity without it.
    crop = cv2.resize(EDITED[:, 60:580], (520 * 3 // 2, 512 * 3 // 2), interpolation=cv2.INTER_CUBIC)
    laid = repair.to_overlap(SOURCE, crop)
    assert laid.crop[0] == pytest.approx(60, abs=3)
    assert laid.crop[2] == pytest.approx(520, abs=5)
    assert verdicts(Alignment(), pair(laid.source, laid.edited)) == []
    squeezed = cv2.resize(EDITED, (612, 512), interpolation=cv2.INTER_AREA)
    laid = repair.to_overlap(SOURCE, squeezed)
    assert laid.crop == (0, 0, 640, 512)
    assert laid.transform[0][0] == pytest.approx(612 / 640, abs=0.002)
    assert verdicts(Alignment(), pair(laid.source, laid.edited)) == []


@given(st.integers(64, 2048), st.integers(64, 2048), st.floats(0.3, 3))
@settings(max_examples=60)
def test_one_aspect_fits_at_any_size(width, height, scale):
    edited = max(8, round(width * scale)), max(8, round(height * scale))
    if abs(edited[0] * height / (edited[1] * width) - 1) <= 0.01:
        assert repair.fits((width, height), edited)
    assert not repair.fits((width, height), (round(width * 1.2), height))
    assert repair.fits((512, 512), (513, 512))


@pytest.mark.parametrize("size", [(320, 256), (1280, 1024), (641, 512)])
def test_the_edited_image_is_brought_to_the_size_of_its_source(size):
    other = cv2.resize(EDITED, size, interpolation=cv2.INTER_AREA)
    assert repair.fits((640, 512), size)
    one = repair.resampled(other, SOURCE)
    assert one.shape == SOURCE.shape
    assert cv2.absdiff(one, EDITED).mean() < 9
    mask = cv2.resize(MASK.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    assert (repair.resampled_mask(mask, SOURCE) != MASK).mean() < 0.01


@pytest.mark.parametrize("mask", [None, MASK])
def test_a_drift_is_taken_back_and_recorded(mask):
    gain, offset = np.array([1.06, 0.97, 0.94]), np.array([2.0, 4.0, -3.0])
    drifted = np.clip(np.rint(EDITED * gain + offset), 0, 255).astype(np.uint8)
    restored, drift = repair.without_drift(SOURCE, drifted, mask)
    np.testing.assert_allclose(drift.gain, gain, atol=0.02)
    np.testing.assert_allclose(drift.offset, offset, atol=2)
    seen = (drifted > 2) & (drifted < 253)
    assert np.abs(restored.astype(int) - EDITED)[seen].mean() < 1.5
    assert repair.without_drift(SOURCE, EDITED, mask) is None
    assert repair.without_drift(SOURCE, scene(98), mask) is None
