"""Semantic duplicates: finds embeddings that nearly repeat an earlier one, with faiss, in bounded memory.

Needs the `faiss-cpu` package (the `semantic` extra).
"""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Vectors compared at a time, first with all kept ones, then with each other."""
RELEASED = 64 * BLOCK
"""Vectors after which the pages of a memory map are released."""
EXACT = 20_000
"""Up to this many vectors, all are compared with all."""
REDUCED, LOOKED_AT = 96, 8
"""Above EXACT: components per vector in the index, and nearest vectors whose full cosine is computed."""
CELL, MOST_CELLS = 500, 10_000
"""Inverted index: vectors per cell from a million vectors on, so that a search does not get slower, and the largest
number of cells, which bounds the memory of the training."""
SAMPLES_PER_CELL, ROUNDS, PROBED = 40, 8, 16
"""Training vectors per cell, rounds of k-means, and cells searched for each vector."""
ROUNDING = 1e-3
"""Rounding error of a squared distance in the index, which has 16-bit components."""


def repeats(vectors: NDArray[Any], least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For every vector: the index of an earlier kept vector whose cosine with it is at least `least`, or -1 if the
    vector itself is kept; and that cosine, or 0.

    vectors: [N, D] of length 1, fp16 or fp32, possibly a memory map. Vectors are taken in order and compared only with
    kept ones, so many copies cost no more than one. Every duplicate is confirmed by its full cosine.

    Beyond `EXACT` vectors the search is approximate. The index holds the `REDUCED` principal components of each kept
    vector, two bytes each, in the cells of an inverted file. A projection shortens distances, so duplicates are near in
    the index too; those beyond the nearest `LOOKED_AT`, or in a cell that is not searched, are missed.
    """
    import faiss

    count, size = vectors.shape
    index, depth = (faiss.IndexFlatL2(size), 1) if count <= EXACT else (_approximate(vectors), LOOKED_AT)
    parents, cosines = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    kept = np.empty(count, np.int64)
    amount = 0
    for start in range(0, count, BLOCK):
        if start % RELEASED == 0:
            _release(vectors)
        block = np.ascontiguousarray(vectors[start : start + BLOCK], np.float32)
        if amount:
            near, which = index.search(block, depth)
            place, rank = np.nonzero((which >= 0) & (near <= 2 - 2 * least + ROUNDING))
            others = kept[which[place, rank]]
            products = np.einsum("nd,nd->n", block[place], np.asarray(vectors[others], np.float32))
            order = np.argsort(products, kind="stable")  # the nearest last: of several, the last one stays
            order = order[products[order] >= least]
            parents[start + place[order]], cosines[start + place[order]] = others[order], products[order]
        left = np.flatnonzero(parents[start : start + len(block)] < 0)
        products = block[left] @ block[left].T
        first = first_kept(products >= least)
        struck = np.flatnonzero(first >= 0)
        parents[start + left[struck]] = start + left[first[struck]]
        cosines[start + left[struck]] = products[struck, first[struck]]
        new = left[first < 0]
        index.add(block[new])
        kept[amount : amount + len(new)] = start + new
        amount += len(new)
    return parents, cosines


def _release(vectors: NDArray[Any]) -> None:
    """Drop the pages of a memory map, which otherwise count as this process's memory until others need it."""
    owner: Any = vectors
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def _approximate(vectors: NDArray[Any]) -> Any:
    """A trained index, still empty."""
    import faiss

    count, size = vectors.shape
    cells = min(max(int(2 * np.sqrt(count)), count // CELL), MOST_CELLS)
    index = faiss.index_factory(size, f"PCA{min(REDUCED, size)},IVF{cells},SQfp16", faiss.METRIC_L2)
    inverted = faiss.extract_index_ivf(index)
    inverted.cp.niter, inverted.nprobe = ROUNDS, PROBED
    chosen = np.sort(np.random.default_rng(0).choice(count, min(count, SAMPLES_PER_CELL * cells), replace=False))
    samples = np.empty((len(chosen), size), np.float32)
    for start in range(0, len(chosen), BLOCK):
        samples[start : start + BLOCK] = vectors[chosen[start : start + BLOCK]]
        _release(vectors)
    index.train(samples)
    return index


def first_kept(near: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[N] of [N, N]: for each item the first kept item before it that is near, or -1 if the item itself is kept. Items
    are taken in order."""
    near = np.tril(near, -1)
    first = np.full(len(near), -1, np.int64)
    for item in np.flatnonzero(near.any(axis=1)):
        before = np.flatnonzero(near[item] & (first < 0))
        if len(before):
            first[item] = before[0]
    return first
