"""Alignment measures how far the edited image lies from the source, whatever was edited."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_scenes import pair, scene, shifted, verdicts, with_object, zoomed

from crispedit.filters.alignment import Alignment

SOURCE = scene(3)
EDITED, MASK = with_object(SOURCE, 180, 120, 220)


def measured(edited, mask=None):
    return Alignment().measure([pair(SOURCE, edited, mask)])[0]


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("quality", [95, 75])
def test_an_edit_in_place_is_aligned(mask, quality):
    sample = pair(SOURCE, EDITED, mask, quality)
    assert verdicts(Alignment(), sample) == []
    assert Alignment().measure([sample])[0]["displacement_px"] < 0.3


@settings(max_examples=12)
@given(st.floats(-25, 25), st.floats(-25, 25))
def test_a_shift_is_measured_in_pixels_of_the_source(x, y):
    found = measured(shifted(EDITED, x, y))
    assert found["displacement_px"] == pytest.approx(np.hypot(x, y), abs=0.4)
    assert found["scale_error"] < 0.003


def test_half_a_pixel_passes_and_two_do_not():
    assert verdicts(Alignment(), pair(SOURCE, shifted(EDITED, 0.5, 0))) == []
    assert verdicts(Alignment(), pair(SOURCE, shifted(EDITED, 0, 2))) == ["displacement_px:high"]


def test_a_zoom_of_half_a_percent_is_one_and_a_rounded_size_is_not():
    for zoom in (1.005, 0.995):
        assert "scale_error:high" in verdicts(Alignment(), pair(SOURCE, zoomed(EDITED, zoom, zoom)))
    rounded = cv2.resize(EDITED, (641, 512), interpolation=cv2.INTER_AREA)
    assert verdicts(Alignment(), pair(SOURCE, rounded)) == []
    assert measured(rounded)["aspect_error"] < 0.001


@pytest.mark.parametrize(("x", "y"), [(1.03, 1.03), (1.0, 1.04), (0.97, 0.97), (1.06, 1.0)])
def test_scale_and_crop_and_stretch(x, y):
    found = measured(zoomed(EDITED, x, y))
    assert found["scale_error"] == pytest.approx(max(abs(x - 1), abs(y - 1)), abs=0.003)
    assert verdicts(Alignment(), pair(SOURCE, zoomed(EDITED, x, y))) == ["displacement_px:high", "scale_error:high"]


def test_another_aspect_is_an_error_and_another_size_is_not():
    squeezed = cv2.resize(EDITED, (600, 512), interpolation=cv2.INTER_AREA)
    assert measured(squeezed)["aspect_error"] == pytest.approx(40 / 640, abs=0.001)
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
        assert moved is None or moved == pytest.approx(13, abs=4)


def test_what_cannot_be_known_is_null():
    smooth = np.full((512, 640, 3), 128, np.uint8)
    assert Alignment().measure([pair(smooth, smooth)])[0]["displacement_px"] is None
    assert measured(scene(99))["displacement_px"] is None
