"""Small generated pairs as a shard set, and a recipe that trains the smallest model on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crispedit import images
from crispedit.record import content_key
from crispedit.shards.pack import Pair, finish, plan, write_shard

PRESET = Path(__file__).parents[1] / "data" / "editmgt-smallest.yaml"
RECIPE = f"""
run: RUN
model: {{start: {PRESET}}}
data: {{shards: SHARDS, resolution: 64, multiple_px: 16, max_aspect: 2, workers: 0}}
steps: 4
batch: 2
global_batch: 4
objective: {{drop_text: 0.3, edit_weight: 2, region_only: 0.5}}
save: {{every: 2}}
watch: {{log_every: 2, sample_every: 4, samples: 2, sampling_steps: 2, held_out_pairs: 4, tracker: none}}
"""


def pair(number: int, category: str) -> Pair:
    """A smooth image, of one of two shapes, and the same with a bright rectangle."""
    key = content_key("train", category, str(number))
    generator = np.random.default_rng(int(key[:8], 16))
    width, height = ((80, 64), (64, 80))[number % 2]
    noise = generator.random((4, 4, 3), dtype=np.float32)
    source = (255 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    mask = np.zeros((height, width), bool)
    mask[8:40, 16:48] = True
    edited = np.where(mask[..., None], 255 - source, source).astype(np.uint8)
    meta = {"instruction": f"brighten rectangle {number}"}
    jpegs = images.encode_jpeg(source), images.encode_jpeg(edited)
    return Pair(key, category, *jpegs, images.encode_mask(mask), meta)


def write_set(folder: Path) -> Path:
    """24 pairs of two categories and two shapes in four shards."""
    pairs = {p.key: p for category in ("add", "color") for p in (pair(n, category) for n in range(12))}
    keys = {c: [key for key, p in pairs.items() if p.category == c] for c in ("add", "color")}
    planned = plan(keys, 6, 0, set(pairs))
    entries = [write_shard(folder, shard, (pairs[key] for key in shard.keys), "test") for shard in planned]
    finish(folder, entries, {})
    return folder


def recipe_file(folder: Path, shards: Path, run: str = "run") -> Path:
    path = folder / f"{run}.yaml"
    path.write_text(RECIPE.replace("RUN", str(folder / run)).replace("SHARDS", str(shards)))
    return path


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if "loss" in row]
