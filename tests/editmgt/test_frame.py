"""Resizing, masks and pasting: exact about which pixels may change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crispedit.editmgt.frame import mask_to_tokens, paste, resize, tokens_to_pixels, working_size

sizes = st.integers(1, 90)


@given(width=st.integers(16, 6000), height=st.integers(16, 6000), multiple=st.sampled_from([16, 32]))
def test_working_size(width, height, multiple):
    across, down = working_size(width, height, 1024, multiple)
    assert across % multiple == 0
    assert down % multiple == 0
    assert across >= multiple
    assert down >= multiple
    scale = 1024 / (width * height) ** 0.5
    assert abs(across - width * scale) <= multiple / 2 + 1e-6 or across == multiple
    if max(width, height) < 3 * min(width, height):
        assert 0.9 < across * down / 1024**2 < 1.1


def test_working_size_of_the_released_case():
    assert working_size(1024, 1024, 1024, 32) == (1024, 1024)
    assert working_size(4000, 3000, 1024, 32) == (1184, 896)


@given(height=sizes, width=sizes, rows=st.integers(1, 20), columns=st.integers(1, 20), seed=st.integers(0, 99))
def test_masks_and_tokens_agree_by_area(height, width, rows, columns, seed):
    """By the definition: a token and a pixel belong together if their rectangles of the unit square overlap."""
    random = np.random.default_rng(seed)

    def together(y, x, row, column):
        across = max(x / width, column / columns) < min((x + 1) / width, (column + 1) / columns) - 1e-12
        down = max(y / height, row / rows) < min((y + 1) / height, (row + 1) / rows) - 1e-12
        return across and down

    mask = np.zeros((height, width), bool)
    y, x = random.integers(height), random.integers(width)
    mask[y, x] = True
    expected = [[together(y, x, r, c) for c in range(columns)] for r in range(rows)]
    assert np.array_equal(mask_to_tokens(mask, rows, columns), expected)

    tokens = np.zeros((rows, columns), bool)
    r, c = random.integers(rows), random.integers(columns)
    tokens[r, c] = True
    pixels = tokens_to_pixels(tokens, width, height)
    for y in range(0, height, 7):
        for x in range(0, width, 7):
            assert pixels[y, x] == together(y, x, r, c)


@given(height=sizes, width=sizes, rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99))
def test_paste_is_exact_outside_and_between_inside(height, width, rows, columns, seed):
    random = np.random.default_rng(seed)
    source = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    answer = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    edited = random.random((rows, columns)) < 0.5
    out = paste(source, answer, edited)
    inside = tokens_to_pixels(edited, width, height)
    assert np.array_equal(out[~inside], source[~inside])
    low, high = np.minimum(source, answer), np.maximum(source, answer)
    assert ((out >= low) & (out <= high)).all()


def test_paste_takes_the_answer_in_the_middle():
    source, answer = np.zeros((160, 160, 3), np.uint8), np.full((160, 160, 3), 200, np.uint8)
    edited = np.zeros((10, 10), bool)
    edited[3:7, 3:7] = True
    out = paste(source, answer, edited)
    assert (out[64:96, 64:96] == 200).all()
    assert 0 < out[48, 80, 0] < 200
    assert (out[:48] == 0).all()
    assert np.array_equal(paste(source, answer, np.ones((10, 10), bool)), answer)


def test_resize_leaves_the_right_size_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    assert resize(image, 48, 32) is image
    flat = np.full((50, 70, 3), 77, np.uint8)
    assert (resize(flat, 20, 30) == 77).all()
    assert resize(flat, 140, 100).shape == (100, 140, 3)
