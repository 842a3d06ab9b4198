"""Region says where the edit is: how much of the image, in how many pieces, how far apart."""

import numpy as np
import pytest
from pair_scenes import pair, scene, with_object

from crispedit.filters.region import Region

SOURCE = scene(11)


def measured(edited):
    return Region().measure([pair(SOURCE, edited)])[0]


def test_one_object_is_one_region_of_its_size():
    edited, mask = with_object(SOURCE, 200, 150, 120)
    found = measured(edited)
    assert found["count"] == 1
    assert found["area_fraction"] == pytest.approx(mask.mean(), rel=0.2)
    assert found["largest_share"] > 0.98
    assert found["box_fraction"] == pytest.approx(120 * 120 / SOURCE[..., 0].size, rel=0.25)


def test_two_objects_in_opposite_corners_spread_over_the_image():
    edited, _ = with_object(SOURCE, 20, 20, 80)
    edited, _ = with_object(edited, 540, 420, 80)
    found = measured(edited)
    assert found["count"] == 2
    assert found["largest_share"] == pytest.approx(0.5, abs=0.1)
    assert found["box_fraction"] > 0.8


def test_a_style_is_everywhere():
    found = measured(255 - SOURCE)
    assert found["area_fraction"] > 0.8
    assert found["box_fraction"] > 0.9


def test_nothing_changed_is_no_region():
    assert measured(SOURCE) == {"count": 0, "area_fraction": 0.0, "largest_share": None, "box_fraction": None}


def test_specks_are_change_but_no_regions():
    edited = SOURCE.copy()
    for x, y in np.random.default_rng(0).integers(20, 490, (6, 2)):
        edited[y : y + 8, x : x + 8] = 255 - edited[y : y + 8, x : x + 8]
    found = measured(edited)
    assert found["area_fraction"] > 0
    assert Region(least_region=0.01).measure([pair(SOURCE, edited)])[0]["count"] == 0
