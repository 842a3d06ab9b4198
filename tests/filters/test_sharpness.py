"""Sharpness compares the edited image's detail with its source's, outside and inside the edit."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene, verdicts, with_object

from crispedit.filters.sharpness import Sharpness

SOURCE = scene(12)
EDITED, MASK = with_object(SOURCE, 200, 150, 160)


@pytest.mark.parametrize("mask", [MASK, None])
def test_an_edit_as_sharp_as_its_source_passes(mask):
    sample = pair(SOURCE, EDITED, mask)
    assert verdicts(Sharpness(), sample) == []
    assert Sharpness().measure([sample])[0]["outside"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("mask", [MASK, None])
@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_a_blurred_image_fails(mask, sigma):
    blurred = cv2.GaussianBlur(EDITED, (0, 0), sigma)
    assert "middle:low" in verdicts(Sharpness(), pair(SOURCE, blurred, mask))


def test_smooth_surfaces_between_sharp_edges_fail():
    smooth = EDITED
    for _ in range(2):
        smooth = cv2.bilateralFilter(smooth, 11, 80, 5)
    assert {"middle:low", "balance:low"} & set(verdicts(Sharpness(), pair(SOURCE, smooth, MASK)))


def test_small_images_have_no_octaves():
    small = SOURCE[:24, :40].copy()
    scores = Sharpness().measure([pair(small, small)])[0]
    assert scores["middle"] is scores["balance"] is None


def test_a_blurred_object_shows_inside_only():
    soft = np.where(MASK[..., None], cv2.GaussianBlur(SOURCE, (0, 0), 6), SOURCE)
    scores = Sharpness().measure([pair(SOURCE, soft, MASK)])[0]
    assert scores["inside"] < 0.5
    assert scores["outside"] > 0.95
    same = Sharpness().measure([pair(SOURCE, SOURCE, MASK)])[0]
    assert same["inside"] > 0.7


def test_an_enlargement_fails():
    half = cv2.resize(EDITED, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(half, (640, 512), interpolation=cv2.INTER_LANCZOS4)
    assert verdicts(Sharpness(), pair(SOURCE, enlarged, MASK)) == ["outside:low"]


def test_an_edit_of_everything_has_no_outside():
    scores = Sharpness().measure([pair(SOURCE, 255 - SOURCE, np.ones(MASK.shape, bool))])[0]
    assert scores["outside"] is scores["texture"] is None


def test_a_smooth_image_has_no_sharpness():
    smooth = np.full((256, 256, 3), 90, np.uint8)
    scores = Sharpness().measure([pair(smooth, smooth)])[0]
    assert scores.pop("scale") == 1
    assert set(scores.values()) == {None}


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_another_size_is_compared_at_the_source_s(scale):
    other = cv2.resize(EDITED, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    scores = Sharpness().measure([pair(SOURCE, other, MASK)])[0]
    assert scores["scale"] == pytest.approx(scale, abs=0.01)
    assert 0.4 < scores["texture"] < 1.1
    quarter = cv2.resize(EDITED, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert "scale:low" in verdicts(Sharpness(), pair(SOURCE, quarter, MASK))
