"""Decontamination: how many copies of benchmark pictures are found, and how many other pictures are taken for copies.

    python -m benchmarks.decontamination [--photos DIR] [--scales 2 3.3 5] [--others N] [--seed S] [--json FILE]

Pictures are pieces of the photographs in DIR (which do not overlap within one scale) and rendered landscapes, many of
which resemble each other. A scale of 1 gives pieces of 200x150 pixels, many of them out of focus. A quarter of the
pictures at most is the benchmark; each of these is cropped to 90 % of one or both sides at a random place, scaled by
0.5 to 1.5 and stored as JPEG of quality 50 to 95. Pictures without detail have no fingerprint: copies of such
benchmark pictures are left out of the share found, and counted beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

from crispedit.compositor.landscape import landscape
from crispedit.copies import Known, fingerprint

PIECE = (150, 200)


def pieces(folder: Path, scales=(2, 3.3, 5)):
    """(name, grey image) of the pieces of each photograph at each scale."""
    for path in sorted(folder.glob("*.jpg")):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for scale in scales:
            height, width = (int(side * scale) for side in PIECE)
            for top in range(0, gray.shape[0] - height + 1, height):
                for left in range(0, gray.shape[1] - width + 1, width):
                    piece = gray[top : top + height, left : left + width]
                    name = f"{path.stem} {scale} {top} {left}"
                    yield name, cv2.resize(piece, PIECE[::-1], interpolation=cv2.INTER_AREA)


def landscapes(count: int, seed: int):
    for number in range(count):
        image = landscape(seed * 1_000_000 + number, 160, 120)
        yield f"landscape {number}", cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def copied(gray, rng):
    """A cropped, scaled and re-encoded copy."""
    height, width = gray.shape
    down, across = ((0.9, 0.9), (0.9, 1.0), (1.0, 0.9))[rng.integers(3)]
    rows, columns = round(down * height), round(across * width)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    scale = rng.uniform(0.5, 1.5)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = cv2.resize(
        gray[top : top + rows, left : left + columns], None, fx=scale, fy=scale, interpolation=how
    )
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))]
    return cv2.imdecode(cv2.imencode(".jpg", part, quality)[1], cv2.IMREAD_GRAYSCALE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--scales", type=float, nargs="+", default=[2, 3.3, 5])
    parser.add_argument("--others", type=int, default=5000, help="pictures at most that are no copies")
    parser.add_argument("--landscapes", type=int, default=500)
    parser.add_argument("--benchmark", type=int, default=500, help="pictures of the benchmark at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    pictures = [*pieces(args.photos, args.scales), *landscapes(args.landscapes, args.seed)]
    order = rng.permutation(len(pictures))
    size = min(args.benchmark, len(pictures) // 4)
    benchmark = [pictures[i] for i in order[:size]]
    others = [pictures[i] for i in order[size : size + args.others]]
    cv2.setNumThreads(1)

    began = time.perf_counter()
    known = Known(benchmark)
    indexed = time.perf_counter() - began
    plain = set(known.plain)
    counts = {"found": 0, "copies": 0, "wrong": 0, "plain copies": len(plain)}
    for name, gray in benchmark:
        if name not in plain:
            print_of = fingerprint(copied(gray, rng))
            copy = None if print_of is None else known.find(print_of)
            counts["copies"] += 1
            counts["found"] += copy is not None and copy.name == name
    alarms, plain_others, examples = 0, 0, []
    began = time.perf_counter()
    for name, gray in others:
        print_of = fingerprint(gray)
        plain_others += print_of is None
        copy = None if print_of is None else known.find(print_of)
        if copy is not None:
            alarms += 1
            examples.append((name, copy.name, copy.closeness))
    looked = time.perf_counter() - began
    figures = {
        "benchmark pictures": size,
        "without detail": len(plain),
        "copies": counts["copies"],
        "found": counts["found"],
        "share found": counts["found"] / counts["copies"],
        "other pictures": len(others),
        "others without detail": plain_others,
        "false alarms": alarms,
        "share of false alarms": alarms / len(others),
        "ms to index a benchmark picture": 1e3 * indexed / size,
        "ms to look a picture up": 1e3 * looked / len(others),
    }
    for name, value in figures.items():
        print(f"{name:<34}{value:>10.4g}")
    for example in examples[:10]:
        print("false alarm:", *example)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
