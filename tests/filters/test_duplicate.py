"""Perceptual hashes, and the near-duplicates among them against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from bad_inputs import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from crispedit.filters.duplicate import Duplicate, bands, near_duplicates
from crispedit.images import encode_jpeg
from crispedit.record import Image, Sample


def phash(image: Image, quality: int = 95) -> int | None:
    (scores,) = Duplicate().measure([Sample("k", encode_jpeg(image, quality))])
    assert scores["edited_phash"] is None
    return scores["phash"]


def bits_apart(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


@pytest.mark.parametrize("seed", range(4))
def test_scaling_and_recompression_change_few_bits(seed: int):
    image = photo(f"original {seed}", 320, 240)
    small = np.asarray(Pillow.fromarray(image).resize((200, 150), Pillow.Resampling.LANCZOS))
    for copy in (small, np.clip(image * 1.08, 0, 255).astype(np.uint8)):
        assert bits_apart(phash(image), phash(copy, 60)) <= 4


def test_other_photographs_are_far():
    hashes = [phash(photo(f"other {seed}", 320, 240)) for seed in range(20)]
    apart = [bits_apart(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(apart) > 8
    assert 28 < np.mean(apart) < 36


def test_a_mirror_image_is_another():
    image = photo("mirror", 320, 240)
    assert bits_apart(phash(image), phash(np.ascontiguousarray(image[:, ::-1]))) > 8


def test_it_fits_a_signed_column():
    hashes = [phash(photo(f"sign {seed}")) for seed in range(12)]
    assert min(hashes) < 0 < max(hashes)
    assert np.array(hashes, np.int64).tolist() == hashes


def test_a_blank_image_has_no_hash():
    assert phash(np.full((60, 80, 3), 200, np.uint8)) is None
    assert phash(photo("not blank")) is not None


def test_a_pair_has_two():
    source, edited = encode_jpeg(photo("one")), encode_jpeg(photo("two"))
    (scores,) = Duplicate().measure([Sample("k", source, edited)])
    assert scores == {"phash": phash(photo("one")), "edited_phash": phash(photo("two"))}


# Near-duplicates


def plainly(hashes: np.ndarray, distance: int) -> list[int]:
    """What `near_duplicates` means, one item at a time."""
    kept, answer = [], []
    for j, item in enumerate(hashes.tolist()):
        near = [i for i in kept if bits_apart(int(hashes[i]), item) <= distance]
        answer.append(near[0] if near else -1)
        if not near:
            kept.append(j)
    return answer


def test_the_earliest_is_kept_and_chains_do_not_collapse():
    chain = np.array([0b0, 0b1, 0b11, 0b111, 0b1111, 0b1], np.int64)
    assert near_duplicates(chain, 0).tolist() == [-1, -1, -1, -1, -1, 1]
    assert near_duplicates(chain, 1).tolist() == [-1, 0, -1, 2, -1, 0]
    assert near_duplicates(chain, 2).tolist() == [-1, 0, 0, -1, 3, 0]


def test_of_two_near_ones_the_earlier_is_named():
    hashes = np.array([0b1100, 0b0011, 0b0000], np.int64)
    assert near_duplicates(hashes, 2).tolist() == [-1, -1, 0]


def test_edges():
    assert near_duplicates(np.array([], np.int64), 4).tolist() == []
    assert near_duplicates(np.array([-1, 0], np.int64), 63).tolist() == [-1, -1]
    assert near_duplicates(np.array([-1, 0], np.int64), 64).tolist() == [-1, 0]
    with pytest.raises(ValueError, match="at least 0"):
        near_duplicates(np.array([1], np.int64), -1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 400),
    centres=st.integers(1, 40),
    flips=st.integers(0, 8),
    distance=st.integers(0, 12),
)
def test_it_is_exact(seed: int, count: int, centres: int, flips: int, distance: int):
    rng = np.random.default_rng(seed)
    hashes = clustered(rng, count, centres, flips)
    assert near_duplicates(hashes, distance).tolist() == plainly(hashes, distance)


def clustered(rng: np.random.Generator, count: int, centres: int, flips: int) -> np.ndarray:
    hashes = rng.integers(-(2**63), 2**63 - 1, centres, dtype=np.int64)[rng.integers(0, centres, count)]
    for _ in range(flips):
        hashes = hashes ^ (np.int64(1) << rng.integers(0, 64, count))
    return hashes


def blockwise(hashes: np.ndarray, distance: int) -> np.ndarray:
    """As `plainly`, quick enough for thousands."""
    bits, kept, answer = hashes.view(np.uint64), [], np.full(len(hashes), -1)
    for j in range(len(bits)):
        near = np.flatnonzero(np.bitwise_count(bits[kept] ^ bits[j]) <= distance) if kept else []
        if len(near):
            answer[j] = kept[near[0]]
        else:
            kept.append(j)
    return answer


@pytest.mark.parametrize("distance", [0, 2, 3, 5, 10])
def test_it_is_exact_where_the_index_works(distance: int):
    rng = np.random.default_rng(distance)
    corpora = {
        "random": clustered(rng, 3000, 3000, 0),
        "clusters": clustered(rng, 4000, 900, 5),
        "one cluster": clustered(rng, 4000, 1, 9),
        "few bits": rng.integers(0, 1 << 13, 5000),
        "shared bits": rng.integers(0, 1 << 30, 4000) << 20,
        "equal": np.full(5000, -7, np.int64),
    }
    for name, hashes in corpora.items():
        assert np.array_equal(near_duplicates(hashes, distance), blockwise(hashes, distance)), name


@pytest.mark.parametrize("distance", range(9))
def test_a_million_are_never_compared_all_with_all(distance: int):
    assert bands(500_000, 500_000, 64, distance) > (0, 0)


def test_a_crowded_bucket_is_divided_again():
    # Most hashes agree in 44 bits and a few in none, so no bit is constant, and most bands crowd into one bucket.
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 1 << 20, 24_000)
    hashes[::50] = rng.integers(-(2**63), 2**63 - 1, len(hashes[::50]), dtype=np.int64)
    found = near_duplicates(hashes, 1)
    kept = np.flatnonzero(found < 0)
    rest = np.flatnonzero(found >= 0)
    assert (np.bitwise_count((hashes[rest] ^ hashes[found[rest]]).view(np.uint64)) <= 1).all()
    assert (found[found[rest]] < 0).all(), "what is repeated is itself kept"
    assert (found[rest] < rest).all()
    neighbours = hashes[kept, None] ^ (np.int64(1) << np.arange(64))
    assert len(np.unique(hashes[kept])) == len(kept)
    assert not np.isin(neighbours, hashes[kept]).any(), "no two kept ones are near"
