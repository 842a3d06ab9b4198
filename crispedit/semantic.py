"""Semantic duplicates: embeddings that nearly repeat an earlier one, by faiss, in bounded memory.

Needs the `faiss-cpu` package (the `semantic` extra).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Vectors compared at a time, first with all that are kept, then with each other."""
EXACT = 20_000
"""Up to so many vectors all are compared with all."""
SAMPLES_PER_CELL, PROBED = 40, 16
"""Of the inverted index: vectors that a cell is learned from, and cells that are searched for each vector."""


def repeats(vectors: NDArray[Any], least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For every vector the index of a kept earlier one whose cosine with it is at least `least`, or -1 if it is kept
    itself; and that cosine, or 0.

    vectors: [N, D] of length 1, fp16 or fp32, may be a memory map. Vectors are taken in order, and only kept ones are
    compared with, so a crowd of copies costs no more than one. Beyond `EXACT` vectors the search is approximate: it
    looks into the cells nearest to a vector, and a duplicate at a cell's edge can be missed. The index holds two bytes
    per number.
    """
    import faiss

    count, size = vectors.shape
    index: Any
    if count <= EXACT:
        index = faiss.IndexFlatIP(size)
    else:
        cells = int(np.clip(4 * np.sqrt(count), 64, 4096))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(size), size, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        index.nprobe = PROBED
        chosen = np.sort(
            np.random.default_rng(0).choice(count, min(count, SAMPLES_PER_CELL * cells), replace=False)
        )
        index.train(np.ascontiguousarray(vectors[chosen], np.float32))
    parents, cosines = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    kept = np.empty(0, np.int64)
    for start in range(0, count, BLOCK):
        block = np.ascontiguousarray(vectors[start : start + BLOCK], np.float32)
        if len(kept):
            near, which = index.search(block, 1)
            struck = np.flatnonzero(near[:, 0] >= least)
            parents[start + struck], cosines[start + struck] = kept[which[struck, 0]], near[struck, 0]
        left = np.flatnonzero(parents[start : start + len(block)] < 0)
        new = left[_strike(block[left], least, start + left, parents, cosines)]
        index.add(block[new])
        kept = np.concatenate([kept, start + new])
    return parents, cosines


def _strike(
    vectors: NDArray[np.float32],
    least: float,
    numbers: NDArray[np.int64],
    parents: NDArray[np.int64],
    cosines: NDArray[np.float32],
) -> NDArray[np.int64]:
    """The places of those that are kept among these vectors; `parents` and `cosines` are filled in for the others."""
    products = np.tril(vectors @ vectors.T, -1)
    kept = np.ones(len(vectors), np.bool_)
    for place in np.flatnonzero((products >= least).any(axis=1)):
        before = np.flatnonzero((products[place] >= least) & kept)
        if len(before):
            kept[place] = False
            parents[numbers[place]] = numbers[before[0]]
            cosines[numbers[place]] = products[place, before[0]]
    return np.flatnonzero(kept)
