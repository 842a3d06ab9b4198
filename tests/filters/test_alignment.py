"""Alignment measures how far the edited image lies from the source, whatever was edited, and repair undoes it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_scenes import pair, scene, shifted, verdicts, warped, with_object, zoomed

from crispedit.filters.alignment import Alignment, repair

SOURCE = scene(3)
EDITED, MASK = with_object(SOURCE, 180, 120, 220)
AT_1024 = 1024 / SOURCE.shape[0]


def measured(edited, mask=None):
    return Alignment().measure([pair(SOURCE, edited, mask)])[0]


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("quality", [95, 75])
def test_an_edit_in_place_is_aligned(mask, quality):
    sample = pair(SOURCE, EDITED, mask, quality)
    assert verdicts(Alignment(), sample) == []
    assert Alignment().measure([sample])[0]["displacement_px"] < 0.3


@settings(max_examples=12, deadline=None)
@given(st.floats(-25, 25), st.floats(-25, 25))
def test_a_shift_is_measured_in_pixels_of_a_1024_px_side(x, y):
    found = measured(shifted(EDITED, x, y))
    assert found["displacement_px"] == pytest.approx(np.hypot(x, y) * AT_1024, abs=0.4)
    assert found["scale_error"] < 0.003


def test_half_a_pixel_passes_and_two_do_not():
    assert verdicts(Alignment(), pair(SOURCE, shifted(EDITED, 0.5, 0))) == []
    assert verdicts(Alignment(), pair(SOURCE, shifted(EDITED, 0, 2))) == ["displacement_px:high"]


@pytest.mark.parametrize(("x", "y"), [(1.03, 1.03), (1.0, 1.04), (0.97, 0.97), (1.06, 1.0)])
def test_scale_and_crop_and_stretch(x, y):
    found = measured(zoomed(EDITED, x, y))
    assert found["scale_error"] == pytest.approx(max(abs(x - 1), abs(y - 1)), abs=0.003)
    assert verdicts(Alignment(), pair(SOURCE, zoomed(EDITED, x, y))) == ["displacement_px:high"]


def test_another_aspect_is_an_error_and_another_size_is_not():
    squeezed = cv2.resize(EDITED, (600, 512), interpolation=cv2.INTER_AREA)
    assert measured(squeezed)["aspect_error"] == pytest.approx(40 / 640)
    assert verdicts(Alignment(), pair(SOURCE, squeezed)) == ["aspect_error:high"]
    larger = cv2.resize(EDITED, (960, 768), interpolation=cv2.INTER_CUBIC)
    assert verdicts(Alignment(), pair(SOURCE, larger)) == []
    assert measured(larger)["displacement_px"] < 0.5


@pytest.mark.parametrize("mask", [True, False])
def test_a_moved_subject_over_a_smooth_still_background_is_no_misalignment(mask):
    y, x = np.mgrid[:512, :640]
    still = np.stack([110 + x / 16, 120 + y / 16, 160 - x / 32], axis=2).astype(np.uint8)
    still[430:] = SOURCE[430:]  # ground to stand on
    before, after = still.copy(), still.copy()
    before[100:300, 100:300] = SOURCE[100:300, 100:300]
    after[100:300, 130:330] = SOURCE[100:300, 100:300]
    moved = np.zeros((512, 640), bool)
    moved[100:300, 100:330] = True
    scores = Alignment().measure([pair(before, after, moved if mask else None)])[0]
    assert scores["displacement_px"] is None or scores["displacement_px"] < 1


def test_a_style_keeps_its_place_or_is_not_known():
    styles = [
        cv2.cvtColor(cv2.cvtColor(SOURCE, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        cv2.stylization(SOURCE, sigma_s=20, sigma_r=0.4),
        cv2.pencilSketch(SOURCE, sigma_s=20, sigma_r=0.1)[1],
        255 - SOURCE,
    ]
    for style in styles:
        displacement = measured(style)["displacement_px"]
        # Some styles fatten edges on one side: by less than a half-resolution pixel, four of a 1024 px side.
        assert displacement is None or displacement < 4
        moved = measured(shifted(style, 12, 5))["displacement_px"]
        assert moved is None or moved == pytest.approx(13 * AT_1024, abs=4)


def test_what_cannot_be_known_is_null():
    smooth = np.full((512, 640, 3), 128, np.uint8)
    assert Alignment().measure([pair(smooth, smooth)])[0]["displacement_px"] is None
    assert measured(scene(99))["displacement_px"] is None


@settings(max_examples=8, deadline=None)
@given(st.floats(-15, 15), st.floats(-15, 15), st.floats(0.97, 1.03), st.floats(-1, 1))
def test_repair_lays_the_edited_image_back(x, y, scale, degrees):
    affine = cv2.getRotationMatrix2D((320, 256), degrees, scale)
    affine[:, 2] += x, y
    if np.hypot(x, y) < 2:
        affine[:, 2] += 3
    fixed = repair(SOURCE, warped(EDITED, affine))
    assert fixed is not None
    image, transform = fixed
    np.testing.assert_allclose(np.array(transform)[:, :2], affine[:, :2], atol=0.003)
    assert verdicts(Alignment(), pair(SOURCE, image)) == []
    inside = np.zeros(MASK.shape, bool)
    inside[60:-60, 60:-60] = True
    assert cv2.absdiff(image, EDITED)[inside].mean() < 8


def test_repair_leaves_alone_what_needs_none_or_cannot_be_explained():
    assert repair(SOURCE, EDITED) is None
    assert repair(SOURCE, scene(98)) is None
    assert repair(SOURCE, zoomed(EDITED, 1.15, 1.0)) is None


def test_repair_undoes_another_size_and_shape():
    # A middle crop of another aspect at the editor's own size: stretched by a plain resize, a similarity without it.
    crop = cv2.resize(EDITED[:, 60:580], (520 * 3 // 2, 512 * 3 // 2), interpolation=cv2.INTER_CUBIC)
    image, transform = repair(SOURCE, crop)
    assert image.shape == SOURCE.shape
    np.testing.assert_allclose(transform, [[1.5, 0, -89.75], [0, 1.5, 0.25]], atol=1.0)
    assert verdicts(Alignment(), pair(SOURCE, image)) == []
    np.testing.assert_array_equal(image[:, :50], SOURCE[:, :50])  # where the crop does not reach
    squeezed = cv2.resize(EDITED, (612, 512), interpolation=cv2.INTER_AREA)
    image, transform = repair(SOURCE, squeezed)
    assert image.shape == SOURCE.shape
    assert transform[0][0] == pytest.approx(612 / 640, abs=0.002)
    assert verdicts(Alignment(), pair(SOURCE, squeezed)) == ["aspect_error:high"]
    assert verdicts(Alignment(), pair(SOURCE, image)) == []


def test_repair_does_not_pass_most_of_the_source_off_as_the_edit():
    half = cv2.resize(EDITED[128:384, 160:480], (640, 512), interpolation=cv2.INTER_CUBIC)
    assert repair(SOURCE, half) is None
