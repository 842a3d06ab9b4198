"""Contact sheets."""

import numpy as np
import pytest
from shard_pairs import make_pair, write_pairs

from crispedit.shards.read import read_shards
from crispedit.shards.sheet import MARGIN_PX, contact_sheet, overlaid


def test_a_sheet_shows_both_images_and_the_mask(tmp_path):
    write_pairs(tmp_path, [make_pair("a"), make_pair("b", masked=False)], 4)
    pairs = list(read_shards(tmp_path))
    sheet = np.asarray(contact_sheet(pairs, 1, 64))
    for number, pair in enumerate(pairs):
        top = number * (sheet.shape[0] // 2) + MARGIN_PX
        cells = [sheet[top : top + 40, MARGIN_PX + i * (64 + MARGIN_PX) :][:, :64] for i in range(3)]
        for cell, image in zip(cells, (pair.source, pair.edited), strict=False):
            assert abs(cell.mean() - image.mean()) < 8
        assert (cells[2] == 255).all() == (pair.mask is None)


def test_the_overlay_marks_exactly_the_mask():
    image = np.full((4, 6, 3), 100, np.uint8)
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:4] = True
    out = overlaid(image, mask)
    assert (out[~mask] == 60).all()
    assert (out[mask] == [177, 66, 82]).all()


def test_no_pairs_no_sheet():
    with pytest.raises(ValueError, match="no pairs"):
        contact_sheet([], 2, 64)
