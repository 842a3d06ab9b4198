"""Does filtering help? The same tiny model, trained on a random half, the kept half and a clean half of one pool.

    python -m benchmarks.data_value --folder DIR [--landscapes 300] [--steps 400] [--seeds 0 1 2] [--json FILE]

The pool: pairs that the compositor makes of rendered landscapes, damaged at the rates `RATES`, which resemble those of
public datasets (no-ops, shifts, changes elsewhere, swapped images, wrong instructions). It is imported like any user's
pairs, without masks. `kept` are the pairs that the shipped filters keep, `clean` the undamaged ones, `random` any; all
three have as many pairs as the smallest. Each trains a new model (`MODEL`, small enough for two CPU cores) with the
same recipe, number of steps and seeds.

Printed for each: the share of damaged pairs, and on held-out landscapes the cross entropy of masked edited tokens, the
L1 to the target inside the mask (last row: of a copy of the source) and to the source outside it; means over seeds with
95 % intervals that resample seeds and landscapes. A second call with the same folder resumes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.sampling_speed import edited
from crispedit import images
from crispedit.editmgt.examples import Encoder
from crispedit.editmgt.objective import losses, masked_batch
from crispedit.editmgt.pipeline import EditMGTPipeline
from crispedit.editmgt.preset import read_preset
from crispedit.editmgt.settings import Objective
from crispedit.pipelines.calibration import defects
from crispedit.record import content_key, seed_of
from crispedit.shards.read import read_shards

RATES = {"no_op": 0.08, "shift": 0.12, "second_change": 0.12, "swapped": 0.05, "wrong_instruction": 0.13}
"""Of the pool's pairs; together half of it."""
ARMS = ("random", "kept", "clean")
BOUNDS = {"instruction.category": {"min": 0.5}, "direction.detail": {"min": -0.1}}
"""Two filters have no bound of their own; these are what their documentation suggests."""
MODEL = {
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 48,
    "num_attention_heads": 2,
    "axes_dims_rope": [16, 16, 16],
    "downsample": False,
}
"""What differs from editmgt-tiny: 0.7 million parameters, and 11 x 7 tokens an image."""
RESOLUTION = 66
MASKINGS = 8
"""Of a held-out pair, over which its loss is a mean; the same ones for every model."""
SIZE = ("384", "256")
RECIPE = {
    "source": {"kind": "pairs", "layout": "jsonl"},
    "engine": {"kind": "inprocess"},
    "categories": dict.fromkeys(("add", "remove", "replace", "color", "background", "style", "motion"), 1),
    "curate": {"max_short_side_px": None, "filters": {}},
}


def main() -> None:
    args = arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    good = made(args.folder / "good", first=1000, count=args.landscapes)
    held = made(args.folder / "held", first=0, count=args.held_out)
    pool = args.folder / "pool"
    rows = damaged(pool, list(read_shards(good)))
    arms = chosen(rows, kept(pool, args.folder / "filtered"))
    pairs = list(read_shards(held))
    preset = args.folder / "model.yaml"
    tiny = read_preset("editmgt-tiny")
    preset.write_text(yaml.safe_dump({**tiny, "resolution": RESOLUTION, "transformer": tiny["transformer"] | MODEL}))
    model = [f"model.start={preset}", f"data.resolution={RESOLUTION}"]
    results = {}
    for arm, names in arms.items():
        tokens = tokenised(imported(pool, arm, [row for row in rows if row["id"] in names], args.folder), model)
        for seed in args.seeds:
            run = args.folder / f"{arm}-{seed}"
            settings = [*model, f"shards={tokens}", f"run={run}", f"steps={args.steps}", f"seed={seed}"]
            settings += ["batch=48", "global_batch=48", "objective.edit_weight=1", "objective.localise=0"]
            settings += ["watch.tracker=none", "data.held_out=0", f"save.every={args.steps}"]
            crispedit("train", "configs/train/tiny.yaml", *settings)
            pipeline = EditMGTPipeline.from_pretrained(run / "model")
            # Nothing is held: no mask has taught these models where to look.
            sampling = EditMGTPipeline.from_pretrained("editmgt-tiny").sampling
            sampling = sampling.changed(hold=0, paste_untouched=False)
            results[arm, seed] = [
                (loss, *edited(pipeline, pair, sampling)[1:3])
                for loss, pair in zip(held_out_losses(pipeline, held), pairs, strict=True)
            ]
    report(args, arms, rows, pairs, results)


def tokenised(shards: Path, model: list[str]) -> Path:
    out = shards.parent / "tokens"
    crispedit("tokenize", str(shards), str(out), "--recipe", "configs/train/tiny.yaml", *model)
    return out


@torch.no_grad()
def held_out_losses(pipeline: EditMGTPipeline, held: Path) -> list[float]:
    """The mean cross entropy, in nats, of the masked edited tokens of each pair, in the shards' order."""
    encoder, empty = Encoder(pipeline.vq, pipeline.text), pipeline.text.encode([""])
    told, shape = Objective(drop_text=0, region_only=1), (56, 80)
    means = []
    for batch in read_shards(held, batch_size=1, shapes=[shape]):
        batches = [
            masked_batch(encoder(batch), empty, told, pipeline.transformer.config.mask_id, -1, draw)
            for draw in range(MASKINGS)
        ]
        tokens = [losses(pipeline.transformer, one)[0][one.examples.region[one.masked]] for one in batches]
        means.append(float(torch.cat(tokens).mean()))
    return means


def made(folder: Path, first: int, count: int) -> Path:
    """Shards of good pairs, from `count` landscapes."""
    photographs, run = folder / "landscapes", folder / "run"
    if not (run / "shards" / "manifest.json").exists():
        module = "crispedit.pipelines.shipped.landscapes"
        numbers = ["--first", str(first), "--count", str(count), "--size", *SIZE]
        subprocess.run([sys.executable, "-m", module, str(photographs), *numbers], check=True)
        plain = ["engine.kind=inprocess", "filters={}", "curate.filters={}"]
        crispedit("build", "configs/embedded.yaml", f"source.path={photographs}", f"run={run}", *plain)
    return run / "shards"


def damaged(folder: Path, pairs: list) -> list[dict]:
    """Write the pool: images and a list of its rows, with what was done to each as "truth"."""
    if (folder / "truth.json").exists():
        return json.loads((folder / "truth.json").read_text())
    folder.mkdir(exist_ok=True)
    kinds, weights = [*RATES, "good"], [*RATES.values(), 1 - sum(RATES.values())]
    rows = []
    for pair in pairs:
        kind = random.Random(seed_of(pair.key, "kind")).choices(kinds, weights)[0]
        source, target, instruction = pair.source, pair.edited, pair.meta["instruction"]
        mask = pair.mask if pair.mask is not None else np.ones(source.shape[:2], bool)
        if kind in defects.STRUCTURAL:
            rng = np.random.default_rng(seed_of(pair.key, kind))
            out = defects.STRUCTURAL[kind](defects.Good(source, target, mask), rng)
            kind, target = (kind, out) if out is not None else ("good", target)
        elif kind == "swapped":
            source, target = target, source
        elif kind == "wrong_instruction":
            others = [other for other in pairs if other.category != pair.category]
            instruction = random.Random(seed_of(pair.key, "other")).choice(others).meta["instruction"]
        names = {side: f"{pair.key}_{side}.jpg" for side in ("source", "edited")}
        for side, image in (("source", source), ("edited", target)):
            (folder / names[side]).write_bytes(images.encode_jpeg(image))
        rows.append({"id": pair.key, **names, "instruction": instruction, "category": pair.category, "truth": kind})
    (folder / "truth.json").write_text(json.dumps(rows))
    write_list(folder / "all.jsonl", rows)
    return rows


def write_list(path: Path, rows: list[dict]) -> None:
    shown = [{name: value for name, value in row.items() if name != "truth"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in shown))


def kept(pool: Path, run: Path) -> set[str]:
    """The ids that the shipped filters keep. Sizes are not judged: the pool is small on purpose."""
    filters = yaml.safe_load(Path("configs/refilter-crispedit2m.yaml").read_text())["filters"]
    filters = {name: options for name, options in filters.items() if name not in ("resolution", "clip")}
    build(pool / "all.jsonl", run, filters)
    return {pair.meta["id"] for pair in read_shards(run / "shards", decode=False)}


def chosen(rows: list[dict], kept_ids: set[str]) -> dict[str, set[str]]:
    """The ids of each arm: equally many, in an order that hashes of the ids decide."""
    order = sorted((row["id"] for row in rows), key=lambda name: content_key("data value", name))
    clean = {row["id"] for row in rows if row["truth"] == "good"}
    of = {"random": order, "kept": [i for i in order if i in kept_ids], "clean": [i for i in order if i in clean]}
    count = min(len(ids) for ids in of.values())
    return {arm: set(of[arm][:count]) for arm in ARMS}


def imported(pool: Path, arm: str, rows: list[dict], folder: Path) -> Path:
    write_list(pool / f"{arm}.jsonl", rows)
    build(pool / f"{arm}.jsonl", folder / f"pairs-{arm}", {})
    return folder / f"pairs-{arm}" / "shards"


def build(path: Path, run: Path, filters: dict) -> None:
    if (run / "shards" / "manifest.json").exists():
        return
    recipe = run.parent / f"{run.name}.yaml"
    content = {**RECIPE, "run": str(run), "filters": filters}
    content["source"] = {**RECIPE["source"], "path": str(path)}
    if filters:
        content["categories"] = {name: {"bounds": BOUNDS} for name in RECIPE["categories"]}
    recipe.write_text(yaml.safe_dump(content))
    crispedit("build", str(recipe))


def crispedit(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "crispedit.pipelines.cli", *words], check=True)


def report(args, arms, rows, pairs, results) -> None:
    truth = {row["id"]: row["truth"] for row in rows}
    of_landscape = defaultdict(list)
    for place, pair in enumerate(pairs):
        of_landscape[pair.meta["source_key"]].append(place)
    groups = list(of_landscape.values())
    copy = [float(abs(pair.source.astype(float) - pair.edited.astype(float))[pair.mask].mean() / 255) for pair in pairs]
    columns = ("loss", "inside", "outside")
    print(f"{'':10}{'pairs':>7}{'damaged':>9}" + "".join(f"{name:>26}" for name in columns))
    table = {"copying": float(np.mean(copy))}
    for arm, names in arms.items():
        values = np.array([results[arm, seed] for seed in args.seeds])  # [seeds, pairs, 3]
        bad = np.mean([truth[name] != "good" for name in names])
        cells = {name: interval(values[..., place], groups) for place, name in enumerate(columns)}
        table[arm] = {"pairs": len(names), "damaged": bad, **cells}
        text = "".join(f"{'{:.4f} [{:.4f}, {:.4f}]'.format(*cell):>26}" for cell in cells.values())
        print(f"{arm:10}{len(names):7}{bad:9.1%}{text}")
    for better, worse in (("kept", "random"), ("clean", "random"), ("clean", "kept")):
        both = [np.array([results[arm, seed] for seed in args.seeds]) for arm in (better, worse)]
        cells = {name: interval((both[0] - both[1])[..., place], groups) for place, name in enumerate(columns)}
        table[f"{better} - {worse}"] = cells
        text = "".join(f"{'{:+.4f} [{:+.4f}, {:+.4f}]'.format(*cell):>26}" for cell in cells.values())
        print(f"{better + ' - ' + worse:26}{text}")
    print(f"copying the source: {np.mean(copy):.4f} inside")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2))


def interval(values, groups):
    """(mean, low, high) of [seeds, pairs]: seeds and landscapes resampled 2,000 times."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        seeds = rng.integers(len(values), size=len(values))
        places = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        means.append(np.nanmean(values[seeds][:, places]))
    return float(np.nanmean(values)), *(float(x) for x in np.percentile(means, [2.5, 97.5]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="for data and trained models; used again if it is there")
    add("--landscapes", type=int, default=300, help="of which the pool is made, seven pairs each")
    add("--held-out", type=int, default=16, help="landscapes to measure on")
    add("--steps", type=int, default=400, help="of training, 48 pairs each")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
