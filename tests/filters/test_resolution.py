"""Resolution reads both images' sizes, and the file's own where the stored photograph was shrunk."""

import numpy as np
import pytest
from pair_scenes import verdicts

from crispedit import images
from crispedit.filters.resolution import Resolution
from crispedit.record import Sample


def jpeg(width: int, height: int) -> bytes:
    return images.encode_jpeg(np.full((height, width, 3), 120, np.uint8))


def test_a_photograph_one_pixel_short_is_too_small_and_its_neighbour_is_not():
    assert verdicts(Resolution(), Sample("a", jpeg(1500, 1023))) == ["short_side_px:low"]
    assert verdicts(Resolution(), Sample("b", jpeg(1024, 1500))) == []


def test_a_shrunk_photograph_counts_with_the_size_of_its_file():
    shrunk = Sample("a", jpeg(300, 200), original_width=3000, original_height=2000)
    assert Resolution().measure([shrunk]) == [{"short_side_px": 2000, "long_side_px": 3000}]


def test_a_pair_is_as_small_as_its_smaller_image():
    pair = Sample("a", jpeg(1600, 1200), edited_jpeg=jpeg(1024, 768))
    assert Resolution().measure([pair]) == [{"short_side_px": 768, "long_side_px": 1024}]
    assert verdicts(Resolution(), pair) == ["short_side_px:low"]


def test_bytes_that_are_no_jpeg_are_an_error():
    with pytest.raises(ValueError, match=r"(?i)jpeg"):
        Resolution().measure([Sample("a", b"no image")])


@pytest.mark.parametrize("known", [{"original_width": 3000}, {"original_height": 2000}])
def test_half_a_size_is_no_size(known: dict[str, int]):
    shrunk = Sample("a", jpeg(300, 200), **known)
    assert Resolution().measure([shrunk]) == [{"short_side_px": 200, "long_side_px": 300}]
