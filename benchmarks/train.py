"""How fast EditMGT trains: tokens a second, where the time goes, images against stored tokens.

    python -m benchmarks.train [--pairs 64] [--steps 12]

CPU: `editmgt-tiny` on landscapes that the compositor renders, through the shard reader (one decoding process) and the
whole trainer, savepoints and sheets left out. "Waiting" is the share of the time in which the next batch is not there
yet, "encoding" that of the image tokenizer and the text encoders. The first steps of each run are not counted.

Where there is a GPU: `editmgt-1b` at 1024 px in bf16 too, batch 4, on stored tokens, and its model FLOP utilisation:
what the step's matrix products need, forward and backward, of what the device is sold to do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crispedit import images
from crispedit.compositor.landscape import landscape
from crispedit.pipelines.train import train
from crispedit.pipelines.training.recipe import TrainRecipe
from crispedit.pipelines.training.tokenize import tokenize
from crispedit.record import content_key
from crispedit.shards.pack import Pair, finish, plan, write_shard

WARM = 4
"""Steps that are not counted."""


def write_pairs(folder: Path, count: int, size: int) -> None:
    """Landscapes, and each with a patch of it turned about."""
    pairs = {}
    for number in range(count):
        source = landscape(number, size, size)
        mask = np.zeros((size, size), bool)
        mask[size // 4 : size // 2, size // 4 : size // 2] = True
        edited = source.copy()
        edited[mask] = 255 - edited[mask]
        key = content_key("benchmark", str(number))
        jpegs = images.encode_jpeg(source), images.encode_jpeg(edited)
        meta = {"instruction": f"turn the colors of patch {number} about"}
        pairs[key] = Pair(key, "color", *jpegs, images.encode_mask(mask), meta)
    entries = [
        write_shard(folder, shard, (pairs[key] for key in shard.keys), "benchmark")
        for shard in plan({"color": list(pairs)}, 100, 0, set(pairs))
    ]
    finish(folder, entries, {})


def recipe(folder: Path, name: str, shards: Path, model: str, size: int, steps: int, **more: Any) -> TrainRecipe:
    precision = "bf16" if torch.cuda.is_available() else "fp32"
    data = {"shards": [str(shards)], "resolution": size, "max_aspect": 1, "workers": 1}
    watch = {"tracker": "none", "log_every": 1, "sample_every": 10**6, "samples": 0}
    batch = more.pop("batch", 8)
    return TrainRecipe(
        run=folder / name,
        model={"start": model},
        data=data,
        steps=steps,
        batch=batch,
        global_batch=batch,
        precision=precision,
        save={"every": 10**6},
        watch=watch,
        **more,
    )


def measure(of: TrainRecipe) -> dict[str, float]:
    """Medians over the counted steps."""
    train(of, write_model=False)
    rows = [json.loads(line) for line in (of.run / "metrics.jsonl").read_text().splitlines()]
    counted = [row for row in rows if "pairs_per_s" in row and row["step"] > WARM]
    names = ("pairs_per_s", "tokens_per_s", "data_wait_share", "encode_share", "mfu", "memory_gb")
    found = {name: [row[name] for row in counted if row[name] is not None] for name in names}
    return {name: float(np.median(values)) if values else float("nan") for name, values in found.items()}


def table(rows: dict[str, dict[str, float]], against: str) -> None:
    print(f"| | pairs/s | ratio | tokens/s | waiting | encoding | MFU | memory |\n|{'---|' * 8}")
    for name, row in rows.items():
        ratio = row["pairs_per_s"] / rows[against]["pairs_per_s"]
        mfu = "unknown" if np.isnan(row["mfu"]) else f"{row['mfu']:.1%}"
        print(
            f"| {name} | {row['pairs_per_s']:.2f} | {ratio:.2f} | {row['tokens_per_s']:.0f} | "
            f"{row['data_wait_share']:.1%} | {row['encode_share']:.1%} | {mfu} | {row['memory_gb']:.1f} GB |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--size", type=int, default=128, help="of the tiny model's images")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = {}
        if torch.cuda.is_available():
            write_pairs(folder / "large", args.pairs, 1024)
            large = {"batch": 4}
            made = recipe(folder, "1b", folder / "large", "editmgt-1b", 1024, args.steps, **large)
            tokenize(made, folder / "large-tokens")
            for checkpointing in (False, True):
                label = "editmgt-1b, 1024 px, bf16" + ", gradient checkpointing" * checkpointing
                of = recipe(
                    *(folder, f"1b-{checkpointing}", folder / "large-tokens", "editmgt-1b", 1024, args.steps),
                    gradient_checkpointing=checkpointing,
                    **large,
                )
                rows[label] = measure(of)
            table(rows, next(iter(rows)))
            rows = {}
        write_pairs(folder / "images", args.pairs, args.size)
        made = recipe(folder, "images-run", folder / "images", "editmgt-tiny", args.size, args.steps)
        tokenize(made, folder / "tokens")
        stored = recipe(folder, "tokens-run", folder / "tokens", "editmgt-tiny", args.size, args.steps)
        rows["editmgt-tiny, on the fly"] = measure(made)
        rows["editmgt-tiny, stored tokens"] = measure(stored)
        table(rows, "editmgt-tiny, on the fly")


if __name__ == "__main__":
    main()
