"""Direction tells an edit from its reverse, where something is added or removed."""

import cv2
import numpy as np
import pytest
from pair_scenes import pair, scene

from crispedit.filters.direction import Direction

SOURCE = scene(1)


def with_disc(image):
    return cv2.circle(image.copy(), (320, 256), 60, (200, 30, 30), -1)


def detail(before, after, category):
    sample = pair(before, after)
    sample.category = category
    return Direction().measure([sample])[0]["detail"]


def test_an_added_thing_brings_edges_and_a_removed_one_takes_them():
    plain = np.full_like(SOURCE, 128)
    disc = with_disc(plain)
    assert detail(plain, disc, "add") > 0.5
    assert detail(disc, plain, "remove") > 0.5


def test_images_of_two_sizes_are_compared_at_one():
    disc = with_disc(SOURCE)
    large = cv2.resize(disc, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    assert detail(SOURCE, large, "add") == pytest.approx(detail(SOURCE, disc, "add"), abs=0.1)


def test_swapped_images_have_the_negative():
    plain = np.full_like(SOURCE, 128)
    disc = with_disc(plain)
    assert detail(disc, plain, "add") == pytest.approx(-detail(plain, disc, "add"), abs=0.01)
    assert detail(plain, disc, "remove") < -0.5


@pytest.mark.parametrize("category", ["style", "color", None])
def test_other_categories_have_no_direction(category):
    assert detail(SOURCE, with_disc(SOURCE), category) is None


def test_where_nothing_changed_there_is_no_direction():
    assert detail(SOURCE, SOURCE, "add") is None
