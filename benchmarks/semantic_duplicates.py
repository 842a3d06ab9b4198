"""Semantic duplicates: seconds, memory and recall of `crispedit.semantic.repeats` over many vectors.

    python -m benchmarks.semantic_duplicates [--vectors 1000000] [--size 512] [--least 0.95] [--json FILE]

No image model's embeddings of a million photographs lie here, so the vectors are made to resemble them: a direction
that all share (unrelated pictures have a cosine of about 0.3), topics, and variation whose strength falls off with the
dimension. One vector in a hundred repeats an earlier one at a cosine of `--least` to 1, and one in a thousand repeats
one and the same. Recall is measured against exact search: for `--checked` vectors at random, and for as many of the
planted ones, all kept earlier vectors are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from crispedit import semantic

CHUNK = 50_000


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(file, count, size, least, seed=0):
    """The vectors as a memory map of fp16 [count, size], and the numbers of the planted duplicates."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, size + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    shared = unit(rng.standard_normal((1, size), np.float32))
    topics = rng.standard_normal((max(10, count // 500), size), np.float32) * spectrum
    crowd, planted = None, []
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        own = rng.standard_normal((rows, size), np.float32) * spectrum
        chunk = unit(0.8 * shared + topics[rng.integers(len(topics), size=rows)] + 0.8 * own)
        crowd = chunk[:1] if crowd is None else crowd
        copies = np.flatnonzero(rng.random(rows) < 0.01)
        copies = copies[copies > 100]
        originals = chunk[rng.integers(100, size=len(copies))]
        many = rng.random(len(copies)) < 0.1
        originals[many] = crowd
        noise = rng.standard_normal(originals.shape, np.float32)
        noise = unit(noise - (noise * originals).sum(1, keepdims=True) * originals)
        cosine = rng.uniform(least, 1, (len(copies), 1)).astype(np.float32)
        chunk[copies] = cosine * originals + np.sqrt(1 - cosine**2) * noise
        file.write(chunk.astype(np.float16).tobytes())
        planted.extend(start + copies)
    file.flush()
    return np.memmap(file, np.float16, "r", shape=(count, size)), np.array(planted)


def exact(vectors, numbers, kept, least):
    """Which of these vectors have a kept earlier one at this cosine or more."""
    queries = np.asarray(vectors[numbers], np.float32)
    best = np.full(len(numbers), -1, np.float32)
    for start in range(0, len(vectors), CHUNK):
        rows = start + np.flatnonzero(kept[start : start + CHUNK])
        cosines = queries @ np.asarray(vectors[rows], np.float32).T
        cosines[rows[None] >= numbers[:, None]] = -1
        best = np.maximum(best, cosines.max(axis=1, initial=-1))
    return best >= least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--least", type=float, default=0.95)
    parser.add_argument("--checked", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryFile(prefix="crispedit-") as file:
        vectors, planted = write(file, args.vectors, args.size, args.least)
        start, cpu = time.perf_counter(), time.process_time()
        parents, _ = semantic.repeats(vectors, args.least)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rng = np.random.default_rng(1)
        numbers = np.concatenate(
            [
                rng.choice(some, min(args.checked, len(some)), replace=False)
                for some in (np.arange(args.vectors), planted)
            ]
        )
        true = exact(vectors, numbers, parents < 0, args.least) | (parents[numbers] >= 0)
    found = parents[numbers] >= 0
    figures = {
        "vectors": args.vectors,
        "numbers per vector": args.size,
        "least cosine": args.least,
        "planted": len(planted),
        "found": int((parents >= 0).sum()),
        "planted and found": int((parents[planted] >= 0).sum()),
        "compared with all": len(numbers),
        "duplicates among these": int(true.sum()),
        "recall": float(found[true].mean()),
        "seconds": seconds,
        "CPU seconds": cpu,
        "peak memory, GB": peak / 1e9,
    }
    for name, value in figures.items():
        print(f"{name:<26}{value:>12.6g}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
