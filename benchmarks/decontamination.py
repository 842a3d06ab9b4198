"""Decontamination: how many copies of benchmark pictures are found among many pictures, and how many others are taken
for copies.

    python -m benchmarks.decontamination [--photos DIR ...] [--pictures 100000] [--benchmark 500] [--json FILE]

The benchmark is a random half of the photographs in the folders, whole, filled up with random pieces of all of them.
Each benchmark picture that has detail gives two copies, cropped at a random place, scaled by 0.5 to 1.5 and stored as
JPEG of quality 50 to 95: one keeps 90 % of one or both sides, the other 80 % of both (as if 10 % were cut off at every
edge).

The others are the rest of the photographs, random pieces of all photographs, and, where these are too few, rendered
landscapes. Pieces show 200x150 pixels of a photograph at full size, 283x212, 400x300 and so on; two of them have at
most half of their area in common, and none is more than half of its photograph: so these are no copies. They are
hard: many show the same sky as a benchmark picture, next to it. Benchmark pictures without enough detail are counted,
but not tested.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np

from crispedit.compositor.landscape import landscape
from crispedit.copies import SUFFIXES, Known, fingerprint
from crispedit.record import seed_of

PIECE = (150, 200)
"""(height, width)"""
SIDE = 600
"""Longest side of a whole photograph here."""


def photographs(folders):
    """(name, grey image) at full size."""
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if gray is not None:
                yield f"{folder.name}/{path.name}", gray


def whole(gray):
    scale = min(1, SIDE / max(gray.shape))
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def places(shape):
    """(height, width, top, left) of the pieces: for each size a grid, and two more between its places."""
    for number in count():
        height, width = (round(side * 2 ** (number / 2)) for side in PIECE)
        if height > shape[0] or width > shape[1] or 2 * height * width > shape[0] * shape[1]:
            return
        for top_first, left_first in ((0, 0), (height // 2, width // 2), (height // 2, 0)):
            for top in range(top_first, shape[0] - height + 1, height):
                for left in range(left_first, shape[1] - width + 1, width):
                    yield height, width, top, left


def pictures(folders):
    """(name, function that gives the grey image) of every photograph and its pieces."""
    for name, gray in photographs(folders):
        yield name, lambda gray=gray: whole(gray)
        for height, width, top, left in places(gray.shape):

            def piece(gray=gray, rows=slice(top, top + height), columns=slice(left, left + width)):
                return cv2.resize(gray[rows, columns], PIECE[::-1], interpolation=cv2.INTER_AREA)

            yield f"{name} {height}x{width} {top} {left}", piece


def landscapes(seed):
    for number in count():
        image = landscape(seed * 1_000_000 + number, 160, 120)
        yield f"landscape {number}", cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


SIDES_KEPT = {"10 %": ((0.9, 0.9), (0.9, 1.0), (1.0, 0.9)), "20 %": ((0.8, 0.8),)}
"""What cropping keeps of the height and the width."""


def copied(gray, rng, kept):
    """A cropped, scaled and re-encoded copy."""
    height, width = gray.shape
    down, across = kept[rng.integers(len(kept))]
    rows, columns = round(down * height), round(across * width)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    scale = rng.uniform(0.5, 1.5)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = cv2.resize(gray[top : top + rows, left : left + columns], None, fx=scale, fy=scale, interpolation=how)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))]
    return cv2.imdecode(cv2.imencode(".jpg", part, quality)[1], cv2.IMREAD_GRAYSCALE)


def chosen(folders, size, seed):
    """The names of the benchmark's pictures, and of the others in random order."""
    photos = {name for name, _ in photographs(folders)}
    names = sorted((name for name, _ in pictures(folders)), key=lambda name: seed_of(name, f"draw {seed}"))
    benchmark = [name for name in names if name in photos][: len(photos) // 2]
    benchmark += [name for name in names if name not in photos][: max(0, size - len(benchmark))]
    taken = set(benchmark)
    return taken, [name for name in names if name not in taken]


class Looked:
    """The results for the pictures of one kind."""

    def __init__(self):
        self.count = self.plain = self.found = 0
        self.examples, self.missed = [], []

    def look(self, known, name, gray, of=None):
        """Whether the picture is found to be a copy: of `of`, or of anything."""
        self.count += 1
        print_of = fingerprint(gray)
        self.plain += print_of is None
        copy = None if print_of is None else known.find(print_of)
        if copy is not None and of in (None, copy.name):
            self.found += 1
            self.examples.append((name, copy.name, copy.closeness))
        else:
            self.missed.append(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", default=[Path("../shared/photos")])
    parser.add_argument("--pictures", type=int, default=100_000, help="with the copies")
    parser.add_argument("--benchmark", type=int, default=500, help="pictures of the benchmark")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    cv2.setNumThreads(1)
    photos = {name for name, _ in photographs(args.photos)}
    names, rest = chosen(args.photos, args.benchmark, args.seed)
    benchmark = [(name, draw()) for name, draw in pictures(args.photos) if name in names]
    began = time.process_time()
    known = Known(benchmark)
    indexed = time.process_time() - began
    plain = set(known.plain)
    copies = {(crop, kind): Looked() for crop in SIDES_KEPT for kind in ("photographs", "pieces")}
    for name, gray in benchmark:
        for crop, kept in SIDES_KEPT.items():
            if name not in plain:
                kind = "photographs" if name in photos else "pieces"
                copies[crop, kind].look(known, name, copied(gray, rng, kept), of=name)
    wanted = args.pictures - sum(looked.count for looked in copies.values())
    shown = set(rest[:wanted])
    others, drawn = Looked(), Looked()
    began = time.process_time()
    for name, draw in pictures(args.photos):
        if name in shown:
            others.look(known, name, draw())
    for name, gray in islice(landscapes(args.seed), wanted - others.count):
        drawn.look(known, name, gray)
    seconds = time.process_time() - began
    alarms = others.found + drawn.found
    with_detail = others.count - others.plain + drawn.count - drawn.plain
    figures = {
        "photographs": len(photos),
        "pictures": args.pictures,
        "of these pieces and photographs": others.count,
        "of these rendered landscapes": drawn.count,
        "others with detail": with_detail,
        "benchmark pictures": len(benchmark),
        "of these without detail": len(plain),
        "false alarms": alarms,
        "share of false alarms": alarms / (others.count + drawn.count),
        "share of those with detail": alarms / with_detail,
        "CPU ms to index a picture": 1e3 * indexed / len(benchmark),
        "CPU ms to draw and look up a picture": 1e3 * seconds / wanted,
    }
    for crop in SIDES_KEPT:
        for kind in ("photographs", "pieces"):
            figures[f"{crop} cropped, {kind}"] = copies[crop, kind].count
            figures[f"{crop} cropped, {kind} found"] = copies[crop, kind].found
        counts = [(copies[crop, kind].found, copies[crop, kind].count) for kind in ("photographs", "pieces")]
        figures[f"{crop} cropped, share found"] = np.divide(*np.sum(counts, axis=0))
    for name, value in figures.items():
        print(f"{name:<38}{value:>10.4g}" if isinstance(value, float) else f"{name:<38}{value:>10}")
    for example in others.examples + drawn.examples:
        print("false alarm:", *example)
    for (crop, _), looked in copies.items():
        for name in looked.missed:
            print(f"missed, {crop} cropped:", name)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
