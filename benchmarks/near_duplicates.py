"""How long `filters.duplicate.near_duplicates` takes: CPU seconds (it uses one core) by distance and kind of
corpus.

    python -m benchmarks.near_duplicates [--hashes 1000000]

The kinds: unrelated hashes; clusters (a third of the items are originals, the rest their copies with 3 bits
flipped on average); and one crowd, where a million images look nearly the same.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from crispedit.filters.duplicate import near_duplicates


def corpora(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    unrelated = rng.integers(-(2**63), 2**63 - 1, count, dtype=np.int64)
    clusters = unrelated[rng.integers(0, max(1, count // 3), count)]
    for _ in range(6):
        flip = np.int64(1) << rng.integers(0, 63, count)
        clusters = clusters ^ np.where(rng.random(count) < 0.5, flip, 0)
    return {"unrelated": unrelated, "clusters": clusters, "one crowd": rng.integers(0, 1 << 20, count)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    count = parser.parse_args().hashes
    print(f"{count} hashes\n{'corpus':<12}{'bits':>6}{'seconds':>10}{'duplicates':>12}")
    for name, hashes in corpora(count).items():
        for distance in (2, 4, 6):
            start = time.process_time()
            found = near_duplicates(hashes, distance)
            print(
                f"{name:<12}{distance:>6}{time.process_time() - start:>10.1f}{int((found >= 0).sum()):>12}", flush=True
            )


if __name__ == "__main__":
    main()
