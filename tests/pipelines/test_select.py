"""The competition of candidates, against the plain definition of each rule."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crispedit.pipelines.steps import select

keys = st.binary(min_size=16, max_size=16).map(bytes.hex)
alike = st.integers(0, 3).map(lambda half: "0" * 16 + f"{half:016x}")
"""Keys that differ only in their second half."""


@given(st.lists(keys | alike, unique=True, max_size=40), st.integers(1, 7))
def test_rows_and_keys_in_the_order_of_the_keys(keys, chunk):
    chunks = [pa.array(keys[start : start + chunk], pa.string()) for start in range(0, len(keys), chunk)]
    order, moved = select.in_key_order(pa.chunked_array(chunks, pa.string()))
    assert [keys[row] for row in order] == sorted(keys) == moved.to_pylist()


@pytest.mark.parametrize("bits", [0, 1, 2, 7, 8, 20, 64])
def test_a_repeat_has_an_earlier_row_of_its_instruction_within_the_bits_of_both_hashes(bits):
    rng = np.random.default_rng(bits)
    text = rng.integers(0, 3, 60).astype(np.uint64)
    hashes = rng.integers(-(2**63), 2**63 - 1, (2, 4))[:, rng.integers(0, 4, 60)]  # four pictures, seen again
    for _ in range((bits + 1) // 2):
        hashes ^= np.left_shift(rng.integers(0, 2, hashes.shape), rng.integers(0, 64, hashes.shape))
    known = rng.random((2, 60)) > 0.1
    columns = [pa.array(of, mask=~valid) for of, valid in zip(hashes, known, strict=True)]
    rows = pa.table({"text": text, "phash": columns[0], "edited_phash": columns[1]})
    near = [
        b
        for b in range(60)
        if any(
            text[a] == text[b]
            and known[:, [a, b]].all()
            and (np.bitwise_count((hashes[:, a] ^ hashes[:, b]).view(np.uint64)) <= bits).all()
            for a in range(b)
        )
    ]
    repeats = select.near_repeats(duckdb.connect(), rows, bits)
    assert sorted(repeats.tolist()) == near
    assert 0 < len(near) < 60
