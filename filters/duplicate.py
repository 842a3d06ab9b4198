"""Duplicates: perceptual hashes of photographs and edits, and the near-duplicates among a run's hashes.

The hash is pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010): the signs, about
their median, of the 8x8 lowest frequencies (neither constant along a row nor a column) of a 32x32 grey thumbnail. It
survives scaling and recompression; unrelated photographs differ in about 32 bits. This filter only measures;
`near_duplicates` finds duplicates among the hashes of a whole run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score

THUMBNAIL = 32
LEAST_CONTRAST = 1.0
"""Standard deviation of the thumbnail, in grey levels, below which the hash would only describe noise."""


class Duplicate(Filter):
    """`phash`: of the source, 64 bits as a signed integer; null for a blank image, which would match anything.
    `edited_phash`: of the edited image; null for a photograph."""

    version: ClassVar[int] = 2
    scope: ClassVar[frozenset[Literal["source", "pair"]]] = frozenset({"source", "pair"})
    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {"phash": int, "edited_phash": int}
    bounds: ClassVar[Mapping[str, Bound]] = {}
    cost: ClassVar[float] = 1.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [
            {
                "phash": phash(sample.source_gray),
                "edited_phash": phash(sample.edited_gray) if sample.is_pair else None,
            }
            for sample in samples
        ]


def phash(gray: NDArray[np.uint8]) -> int | None:
    """The signed 64-bit perceptual hash of a grey image [H, W], or None if it is blank."""
    small = change.shrink(gray, change.factor(gray.shape))  # by halves, where OpenCV is quick
    thumbnail = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
    if thumbnail.std() < LEAST_CONTRAST:
        return None
    low = cv2.dct(thumbnail)[1:9, 1:9].ravel()
    return int(np.packbits(low > np.median(low)).view(">i8")[0])


def near_duplicates(hashes: NDArray[np.int64], distance: int) -> NDArray[np.int64]:
    """For every item, the index of the earliest kept item within `distance` bits of it, or -1 if it is kept
    itself.

    Items are taken in order: one is kept if no kept item before it is that near, so a chain of small steps
    does not collapse into one. Exact: no near pair is missed. [N] of 64-bit hashes, giving [N] of indices.
    """
    if distance < 0:
        raise ValueError(f"distance {distance} must be at least 0 bits")
    # Equal hashes have equal neighbours, so only the first of each takes part.
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    bits, width = _varying(values[order].view(np.uint64)) if len(values) else (values.view(np.uint64), 0)
    parent = np.full(len(bits), -1, np.int64)
    if len(bits):
        _keep(bits, width, np.arange(len(bits)), distance, parent)
    position = np.empty(len(bits), np.int64)
    position[order] = np.arange(len(bits))
    own = position[inverse.ravel()]
    earliest = first[order][np.where(parent[own] < 0, own, parent[own])].astype(np.int64)
    return np.where(earliest == np.arange(len(hashes)), -1, earliest)


def near_known(known: NDArray[np.int64], hashes: NDArray[np.int64], distance: int) -> NDArray[np.bool_]:
    """Which of these 64-bit hashes differ in at most `distance` bits from any known one. [K], [N] to [N]."""
    struck = np.zeros(len(hashes), np.bool_)
    if len(known) and len(hashes):
        for _, j in _near(known.view(np.uint64), hashes.view(np.uint64), 64, distance):
            struck[j] = True
    return struck


BLOCK = 512
"""Up to this many items are compared all with all, which is cheaper than an index."""
CHUNK = 1 << 21
"""Pairs compared at a time, which bounds the memory."""
CROWDED = 1 << 24
"""Pairs in one bucket from which it gets its own index."""


def _keep(
    bits: NDArray[np.uint64],
    width: int,
    items: NDArray[np.int64],
    distance: int,
    parent: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The kept ones of ascending `items`; fills in `parent` for the others.

    Works in halves: the kept items of the first half remove their duplicates from the second before that is processed,
    so a dense cluster shrinks to its few kept items instead of giving all its pairs.
    """
    if len(items) > BLOCK:
        middle = len(items) // 2
        left = _keep(bits, width, items[:middle], distance, parent)
        right = items[middle:]
        nearest = np.full(len(right), len(bits), np.int64)
        for i, j in _near(bits[left], bits[right], width, distance):
            np.minimum.at(nearest, j, left[i])
        struck = nearest < len(bits)
        parent[right[struck]] = nearest[struck]
        return np.concatenate([left, _keep(bits, width, right[~struck], distance, parent)])
    near = np.tril(np.bitwise_count(bits[items, None] ^ bits[items]) <= distance, -1)
    kept = np.ones(len(items), np.bool_)
    for item in np.flatnonzero(near.any(axis=1)):
        before = np.flatnonzero(near[item] & kept)
        if len(before):
            kept[item] = False
            parent[items[item]] = items[before[0]]
    return items[kept]


Pairs = Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _near(a: NDArray[np.uint64], b: NDArray[np.uint64], width: int, distance: int) -> Pairs:
    """Index pairs (i, j) with at most `distance` differing bits between a[i] and b[j], numbers of `width` bits; a pair
    may be repeated.

    Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012): of `count` bands of bits, two near numbers differ in at
    most distance // count bits in at least one band, and those few values are looked up in a table.
    """
    count = _bands(len(a), len(b), width, distance)
    if count == 0 or len(a) * len(b) <= BLOCK * BLOCK:
        rows = max(1, CHUNK // len(b)) if len(b) else 1
        for start in range(0, len(a), rows):
            i, j = np.nonzero(np.bitwise_count(a[start : start + rows, None] ^ b) <= distance)
            yield i + start, j
        return
    for number in range(count):
        start, stop = number * width // count, (number + 1) * width // count
        keys = 1 << (stop - start)
        low = np.uint64(keys - 1)
        a_keys = ((a >> np.uint64(start)) & low).astype(np.int64)
        b_keys = ((b >> np.uint64(start)) & low).astype(np.int64)
        order = np.argsort(a_keys, kind="stable")
        a_counts, b_counts = np.bincount(a_keys, minlength=keys), np.bincount(b_keys, minlength=keys)
        starts = np.cumsum(a_counts) - a_counts
        for flip in (0, *(1 << bit for bit in range(stop - start))) if distance >= count else (0,):
            wanted = b_keys ^ flip
            crowded = a_counts * b_counts[np.arange(keys) ^ flip] > CROWDED
            # Items in a crowded bucket agree in this band; their other bits are a smaller problem of the same kind.
            for key in np.flatnonzero(crowded):
                i, j = order[starts[key] : starts[key] + a_counts[key]], np.flatnonzero(wanted == key)
                inner = _varying(np.concatenate([a[i], b[j]]) & ~(low << np.uint64(start)))
                for k, m in _near(inner[0][: len(i)], inner[0][len(i) :], inner[1], distance - (flip > 0)):
                    yield i[k], j[m]
            found = np.flatnonzero((a_counts > 0)[wanted] & ~crowded[wanted])
            at = wanted[found]
            for k, m in _compare(a[order], b[found], starts[at], a_counts[at], distance):
                yield order[k], found[m]


def _bands(n_a: int, n_b: int, width: int, distance: int) -> int:
    """The cheapest number of bands, with look-ups of at most one differing bit; 0 if comparing all pairs is cheaper."""
    costs = {0: n_a * n_b / 4}  # without gathering
    # More bands than distance + 1 find nothing more, but bands of over 20 bits would need too large a table.
    for count in range(distance // 2 + 1, max(distance + 1, -(-width // 20)) + 1):
        size = -(-width // count)
        if 4 <= size <= 20:
            lookups = count * (size + 1 if distance >= count else 1)
            costs[count] = lookups * (n_b + 2**size + 4 * n_a * n_b / 2**size)
    return min(costs, key=lambda count: costs[count])


def _varying(numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], int]:
    """The numbers with the bits squeezed out in which none differs, and how many bits are left."""
    varies = int(np.bitwise_or.reduce(numbers ^ numbers[0]))
    bits = [bit for bit in range(64) if varies >> bit & 1]
    if len(bits) > 56:
        return numbers, 64
    squeezed = np.zeros_like(numbers)
    for place, bit in enumerate(bits):
        squeezed |= ((numbers >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)
    return squeezed, len(bits)


def _compare(
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    distance: int,
) -> Pairs:
    """The near pairs of each b[j] with a[starts[j]:][:lengths[j]], compared CHUNK at a time."""
    totals = np.cumsum(lengths)
    done = 0
    while done < len(b):
        before = totals[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(totals, before + CHUNK, side="right")))
        several = lengths[done:stop]
        j = np.repeat(np.arange(done, stop), several)
        i = np.arange(len(j)) + np.repeat(starts[done:stop] - (totals[done:stop] - several - before), several)
        near = np.bitwise_count(a[i] ^ b[j]) <= distance
        yield i[near], j[near]
        done = stop
