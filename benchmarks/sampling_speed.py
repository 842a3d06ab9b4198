"""What approximate sampling costs in quality: `speed` fast and faster, beside exact runs of fewer steps.

    python -m benchmarks.sampling_speed SHARDS [--model editmgt-tiny] [--pairs 56] [--steps 36 12 6] [--json FILE]

For each way of sampling: CPU seconds an edit, L1 to the target inside the mask, L1 to the source outside it, and the
share of tokens that agree with the exact run of the most steps; means with 95 % intervals over the pairs (bootstrap).
A speed is worth having where it lies above the curve of fewer steps. The pairs should be ones the model never saw.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from crispedit.editmgt.pipeline import EditMGTPipeline
from crispedit.editmgt.sampler import Sampled
from crispedit.shards.read import read_shards


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    pipeline = EditMGTPipeline.from_pretrained(args.model, device=args.device)
    pairs = [pair for pair in read_shards(args.shards, shuffle=True) if pair.mask is not None][: args.pairs]
    sampling = pipeline.sampling.changed(hold=args.hold) if args.hold is not None else pipeline.sampling
    ways = {f"exact, {steps} steps": sampling.changed(steps=steps, speed="exact") for steps in args.steps}
    ways |= {
        f"{speed}, {args.steps[0]} steps": sampling.changed(steps=args.steps[0], speed=speed)
        for speed in ("fast", "faster")
    }
    results = {name: [edited(pipeline, pair, options) for pair in pairs] for name, options in ways.items()}
    exact = results[next(iter(ways))]
    rows = {name: summary(found, exact) for name, found in results.items()}
    first = rows[next(iter(ways))]["cpu_s"]
    print(f"{args.model}, {len(pairs)} pairs of {args.shards}")
    print(f"{'':24}{'CPU s':>8}{'faster':>8}{'L1 inside':>24}{'L1 outside':>24}{'tokens agree':>14}")
    for name, row in rows.items():
        columns = "".join(f"{'{:.4f} [{:.4f}, {:.4f}]'.format(*row[key]):>24}" for key in ("inside", "outside"))
        print(f"{name:24}{row['cpu_s']:8.3f}{first / row['cpu_s']:7.2f}x{columns}{row['agree']:14.1%}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def edited(pipeline, pair, options):
    """(CPU seconds, L1 inside, L1 outside, tokens) of one edit, with the pair's seed."""
    began = time.process_time()
    last: list[Sampled] = []
    (answer,) = pipeline(
        pair.source, pair.meta["instruction"], options, seed=int(pair.key[:8], 16), on_step=last.append
    )
    seconds = time.process_time() - began
    image = answer.image.astype(np.float32) / 255
    target, source = (array.astype(np.float32) / 255 for array in (pair.edited, pair.source))
    inside, outside = abs(image - target)[pair.mask], abs(image - source)[~pair.mask]
    return (seconds, inside.mean(), outside.mean() if outside.size else np.nan, last[-1].tokens.numpy(force=True))


def summary(found, exact):
    seconds, inside, outside = (np.array([row[i] for row in found]) for i in range(3))
    agree = [np.mean(row[3] == other[3]) for row, other in zip(found, exact, strict=True)]
    return {
        "cpu_s": float(np.median(seconds)),
        "inside": interval(inside),
        "outside": interval(outside[~np.isnan(outside)]),
        "agree": float(np.mean(agree)),
    }


def interval(values):
    """(mean, low, high): 95 % by 2,000 resamples of the pairs."""
    chosen = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[chosen].mean(1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("shards", help="a shard set of held-out pairs with masks")
    add("--model", default="editmgt-tiny")
    add("--device", default="cpu")
    add("--pairs", type=int, default=56)
    add("--steps", type=int, nargs="+", default=[36, 24, 16, 12, 8, 6], help="the first is the reference")
    add("--hold", type=float, help="default: the checkpoint's")
    add("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
