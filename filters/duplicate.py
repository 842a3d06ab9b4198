"""Duplicates: perceptual hashes of photographs and edits, and the near-duplicates among a run's hashes.

The hash is pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010): the signs, about
their median, of the 8x8 lowest frequencies (neither constant along a row nor a column) of a 32x32 grey thumbnail. It
survives scaling and recompression; unrelated photographs differ in about 32 bits. This filter only measures;
`near_duplicates` finds duplicates among the hashes of a whole run.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import change
from crispedit.parts import Filter, Sample, Score
from crispedit.semantic import first_kept

THUMBNAIL = 32
LEAST_CONTRAST = 1.0
"""Standard deviation of the thumbnail, in grey levels, below which the hash would only describe noise."""


class Duplicate(Filter):
    """`phash`: of the source, 64 bits as a signed integer; null for a blank image, which would match anything.
    `edited_phash`: of the edited image; null for a photograph."""

    version = 3
    scope = frozenset({"source", "pair"})
    scores = {"phash": int, "edited_phash": int}
    cost = 1.0

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        edited = phash(sample.edited_middle) if sample.is_pair else None
        return {"phash": phash(sample.source_middle), "edited_phash": edited}


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
    if not len(hashes):
        return np.zeros(0, np.int64)
    # Equal hashes have equal neighbours, so only the first of each takes part.
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    bits, width = _varying(values[order].view(np.uint64))
    parent = np.full(len(bits), -1, np.int64)
    _keep(bits, width, np.arange(len(bits)), distance, parent)
    position = np.empty(len(bits), np.int64)
    position[order] = np.arange(len(bits))
    own = position[inverse.ravel()]
    earliest = first[order][np.where(parent[own] < 0, own, parent[own])].astype(np.int64)
    return np.where(earliest == np.arange(len(hashes)), -1, earliest)


def near_known(known: NDArray[np.int64], hashes: NDArray[np.int64], distance: int) -> NDArray[np.bool_]:
    """Which of these 64-bit hashes differ in at most `distance` bits from any known one. [K], [N] to [N]."""
    struck = np.zeros(len(hashes), np.bool_)
    for _, j in _near(known.view(np.uint64), hashes.view(np.uint64), 64, distance):
        struck[j] = True
    return struck


BLOCK = 512
"""Up to this many items are compared all with all, which is cheaper than an index."""
CHUNK = 1 << 21
"""Pairs compared at a time, which bounds the memory."""
CROWDED = 1 << 24
"""Pairs in one bucket from which it gets its own index."""
TABLE_BITS, MOST_CHOSEN = 22, 6
"""The most bits of a table's key, and the most bands that they come from."""


def _keep(
    bits: NDArray[np.uint64], width: int, items: NDArray[np.int64], distance: int, parent: NDArray[np.int64]
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
    first = first_kept(np.bitwise_count(bits[items, None] ^ bits[items]) <= distance)
    parent[items[first >= 0]] = items[first[first >= 0]]
    return items[first < 0]


Pairs = Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _near(a: NDArray[np.uint64], b: NDArray[np.uint64], width: int, distance: int) -> Pairs:
    """Index pairs (i, j) with at most `distance` differing bits between a[i] and b[j], numbers of `width` bits; a pair
    may be repeated.

    The bits are cut into more bands than `distance`. Two near numbers agree in at least `count - distance` bands, so
    they are looked up by every choice of that many (Manku, Jain, Das Sarma, "Detecting near-duplicates for web
    crawling", WWW 2007).
    """
    if len(a) > len(b):  # the table is of the fewer
        yield from ((i, j) for j, i in _near(b, a, width, distance))
        return
    count, size = bands(len(a), len(b), width, distance)
    if count == 0 or len(a) * len(b) <= BLOCK * BLOCK:
        rows = max(1, CHUNK // len(b)) if len(b) else 1
        for start in range(0, len(a), rows):
            i, j = np.nonzero(np.bitwise_count(a[start : start + rows, None] ^ b) <= distance)
            yield i + start, j
        return
    keys = 1 << (count - distance) * size
    for chosen in combinations(range(0, count * size, size), count - distance):
        a_keys, b_keys = _key(a, chosen, size), _key(b, chosen, size)
        order = np.argsort(a_keys)
        a_counts, b_counts = np.bincount(a_keys, minlength=keys), np.bincount(b_keys, minlength=keys)
        starts = np.cumsum(a_counts) - a_counts
        crowded = a_counts * b_counts > CROWDED
        # Items in a crowded bucket agree in these bands; their other bits are a smaller problem of the same kind.
        mask = np.uint64(sum((1 << size) - 1 << start for start in chosen))
        for key in np.flatnonzero(crowded):
            i, j = order[starts[key] : starts[key] + a_counts[key]], np.flatnonzero(b_keys == key)
            inner, left = _varying(np.concatenate([a[i], b[j]]) & ~mask)
            for k, m in _near(inner[: len(i)], inner[len(i) :], left, distance):
                yield i[k], j[m]
        wanted = np.flatnonzero(((a_counts > 0) & ~crowded)[b_keys])
        at = b_keys[wanted]
        for k, m in _compare(a[order], b[wanted], starts[at], a_counts[at], distance):
            yield order[k], wanted[m]


def _key(numbers: NDArray[np.uint64], starts: Sequence[int], size: int) -> NDArray[np.int64]:
    """The bands of `size` bits that start at these bits, as one number."""
    key = np.zeros_like(numbers)
    for place, start in enumerate(starts):
        band = (numbers >> np.uint64(start)) & np.uint64((1 << size) - 1)
        key |= band << np.uint64(place * size)
    return key.astype(np.int64)


def bands(few: int, many: int, width: int, distance: int) -> tuple[int, int]:
    """The cheapest (number of bands, bits of each); no bands if comparing all pairs is cheaper."""
    costs = {(0, 0): few * many / 4}  # without gathering
    for count in range(distance + 1, distance + 1 + MOST_CHOSEN):
        for size in range(1, width // count + 1):
            bits = (count - distance) * size
            if 4 <= bits <= TABLE_BITS:
                each = 10 * few + 4 * many + 1.5 * 2**bits + 3 * few * many / 2**bits
                costs[count, size] = comb(count, distance) * each
    return min(costs, key=lambda chosen: costs[chosen])


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
    a: NDArray[np.uint64], b: NDArray[np.uint64], starts: NDArray[np.int64], lengths: NDArray[np.int64], distance: int
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
