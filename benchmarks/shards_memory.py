"""Peak memory of the shard reader for small and large shards; fails if it grows with the size of the shards.

    python -m benchmarks.shards_memory [--pairs 1024] [--folder DIR]

The same pairs are packed into shards of different sizes. A fresh process reads each set with two workers, and the peak
resident memory of all three processes is added up; pages of the ring are counted in each process that touches them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from crispedit import images
from crispedit.record import content_key
from crispedit.shards.pack import Pair, finish, plan, write_shard
from crispedit.shards.read import read_shards

SIZE_PX = 1024
WORKERS = 2
SLOTS = 6 * WORKERS + 2
BYTES_PER_SAMPLE = 1200
"""Of the index and the order while a set is opened, as docs/format.md states."""
SLACK_MB = 48
"""What an allocator may hold on to, beyond what is stated."""


def write_set(folder: Path, count: int, pairs_per_shard: int) -> int:
    """A set of `count` pairs of one photograph under different keys; the bytes of its largest shard."""
    noise = np.random.default_rng(0).random((256, 256, 3), dtype=np.float32)
    image = (255 * cv2.resize(noise, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC).clip(0, 1)).astype(np.uint8)
    source, edited = images.encode_jpeg(image), images.encode_jpeg(255 - image)
    mask = images.encode_mask(np.ones((SIZE_PX, SIZE_PX), bool))
    keys = [content_key(str(number)) for number in range(count)]
    entries = [
        write_shard(folder, shard, (Pair(key, "color", source, edited, mask, {}) for key in shard.keys), "memory")
        for shard in plan({"color": keys}, pairs_per_shard, 0, keys)
    ]
    finish(folder, entries, {})
    return max(entry.bytes for entry in entries)


def peak_mb(pid: int | str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def read(folder: str, decode: bool) -> None:
    """Read one epoch; print the peaks in MB before and after as JSON."""
    with read_shards(folder, decode=decode, shuffle=True, workers=WORKERS if decode else 0) as reader:
        before = peak_mb("self")
        count = sum(1 for _ in reader)
        workers = [] if reader.ring is None else [peak_mb(worker.process.pid) for worker in reader.ring.workers]
        print(json.dumps({"pairs": count, "before": before, "main": peak_mb("self"), "workers": workers}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    parser.add_argument("--read", nargs=2, metavar=("FOLDER", "DECODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read[0], args.read[1] == "pixels")
        return 0
    ring_mb = SLOTS * 7 * SIZE_PX**2 / 2**20
    print(f"the ring of at most {SLOTS} slots has {ring_mb:.0f} MB")
    print(f"{'':8}{'shard MB':>10}{'main MB':>10}{'workers MB':>14}{'sum MB':>10}")
    grown = 0.0
    for what in ("bytes", "pixels"):
        sums = []
        for pairs_per_shard in (args.pairs // 32, args.pairs // 4, args.pairs):
            root = Path(tempfile.mkdtemp(prefix="memory-", dir=args.folder))
            try:
                largest = write_set(root, args.pairs, pairs_per_shard)
                command = [sys.executable, "-m", "benchmarks.shards_memory", "--read", str(root), what]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            finally:
                shutil.rmtree(root)
            assert found["pairs"] == args.pairs
            sums.append(found["main"] + sum(found["workers"]))
            workers = " + ".join(f"{peak:.0f}" for peak in found["workers"]) or "-"
            print(f"{what:8}{largest / 1e6:>10.0f}{found['main']:>10.0f}{workers:>14}{sums[-1]:>10.0f}")
        grown = max(grown, max(sums) - sums[0])
    allowed = SLACK_MB + args.pairs * BYTES_PER_SAMPLE / 2**20
    print(f"largest growth with 32 times larger shards: {grown:.0f} MB, allowed {allowed:.0f} MB")
    return 0 if grown <= allowed else 1


if __name__ == "__main__":
    raise SystemExit(main())
