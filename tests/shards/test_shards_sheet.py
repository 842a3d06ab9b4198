"""Contact sheets."""

import numpy as np
import pytest
from shard_pairs import make_pair, write_pairs

from crispedit.images import encode_jpeg
from crispedit.shards.read import read_shards
from crispedit.shards.sheet import MARGIN_PX, change_map, contact_sheet, overlaid, pixels, thumbnail


def test_a_sheet_shows_both_images_and_the_mask_or_the_change(tmp_path):
    write_pairs(tmp_path, [make_pair("a"), make_pair("b", masked=False)], 4)
    pairs = list(read_shards(tmp_path))
    sheet = np.asarray(contact_sheet(pairs, 1, 64))
    for number, pair in enumerate(pairs):
        top = number * ((sheet.shape[0] - MARGIN_PX) // 2) + 2 * MARGIN_PX
        cells = [sheet[top : top + 36, 2 * MARGIN_PX + i * (64 + MARGIN_PX) :][:, :64] for i in range(3)]
        last = change_map(pair.source, pair.edited) if pair.mask is None else overlaid(pair.edited, pair.mask)
        for cell, image in zip(cells, (pair.source, pair.edited, last), strict=True):
            assert abs(cell.mean() - image.mean()) < 12


def test_the_overlay_marks_exactly_the_mask():
    image = np.full((8, 10, 3), 100, np.uint8)
    mask = np.zeros((8, 10), bool)
    mask[1:7, 2:8] = True
    out = overlaid(image, mask)
    assert (out[~mask] == 45).all()
    assert (out[2:6, 3:7] == [158, 74, 98]).all()  # a tint, and around it the outline
    assert (out[1, 2:8] == [255, 32, 96]).all()


def test_the_map_of_change_is_bright_where_the_pair_differs():
    source = np.full((64, 96, 3), 120, np.uint8)
    edited = source.copy()
    edited[16:48, 16:48] = 250
    levels = change_map(source, edited).max(axis=2)
    assert levels[24:40, 24:40].min() > 2 * levels[:, 64:].max()
    assert change_map(source, edited[::2, ::2]).shape == (32, 48, 3)  # sizes may differ


def test_a_thumbnail_is_as_wide_as_asked_and_never_enlarged():
    jpeg = encode_jpeg(np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(100, axis=0))
    assert pixels(jpeg, 80).shape == (40, 80, 3)
    assert pixels(jpeg, 640).shape == (100, 200, 3)
    assert thumbnail(jpeg, 0) == jpeg


def test_no_pairs_no_sheet():
    with pytest.raises(ValueError, match="no pairs"):
        contact_sheet([], 2, 64)
