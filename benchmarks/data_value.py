"""Does filtering help? The same tiny model, trained on a random half, the kept half and a clean half of one pool.

    python -m benchmarks.data_value --folder DIR [--landscapes 300] [--steps 1500] [--seeds 0 1 2] [--json FILE]

The pool: pairs that the compositor makes of rendered landscapes, then damaged at `RATES`, about what is found in public
datasets (no-ops, shifts, changes elsewhere, swapped images, wrong instructions). It is imported as anybody's pairs are,
without masks. `kept` is what the shipped filters keep, `clean` what was not damaged, `random` any; each as many pairs
as the smallest has. Every arm trains a fresh model by one recipe for as many steps, on the seeds given.

Printed: per arm the share of damaged pairs, and on held-out landscapes the L1 to the target inside the mask (copying
the source: the last row) and to the source outside it, means over seeds with 95 % intervals that resample seeds and
landscapes. The same folder resumes.
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
import yaml

from benchmarks.sampling_speed import edited
from crispedit import images
from crispedit.editmgt.pipeline import EditMGTPipeline
from crispedit.pipelines.calibration import defects
from crispedit.record import content_key, seed_of
from crispedit.shards.read import read_shards

RATES = {"no_op": 0.08, "shift": 0.12, "second_change": 0.12, "swapped": 0.05, "wrong_instruction": 0.13}
"""Of the pool's pairs; together half of it."""
ARMS = ("random", "kept", "clean")
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
    results = {}
    for arm, names in arms.items():
        shards = imported(pool, arm, [row for row in rows if row["id"] in names], args.folder)
        for seed in args.seeds:
            run = args.folder / f"{arm}-{seed}"
            crispedit(
                "train",
                "configs/train/tiny.yaml",
                f"shards={shards}",
                f"run={run}",
                f"steps={args.steps}",
                f"seed={seed}",
                "objective.edit_weight=1",
                "objective.localise=0",
                "watch.tracker=none",
                "data.held_out=0",
            )
            pipeline = EditMGTPipeline.from_pretrained(run / "model")
            # Nothing is held: no mask has taught these models where to look.
            sampling = EditMGTPipeline.from_pretrained("editmgt-tiny").sampling
            sampling = sampling.changed(hold=0, paste_untouched=False)
            results[arm, seed] = [edited(pipeline, pair, sampling)[1:3] for pair in pairs]
    report(args, arms, rows, pairs, results)


def made(folder: Path, first: int, count: int) -> Path:
    """Shards of good pairs of so many landscapes."""
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
            kind, (source, target) = (kind, out) if out is not None else ("good", (source, target))
        elif kind == "swapped":
            source, target = target, source
        elif kind == "wrong_instruction":
            others = [other for other in pairs if other.category != pair.category]
            instruction = random.Random(seed_of(pair.key, "other")).choice(others).meta["instruction"]
        names = {side: f"{pair.key}_{side}.jpg" for side in ("source", "edited")}
        for side, image in (("source", source), ("edited", target)):
            (folder / names[side]).write_bytes(images.encode_jpeg(image))
        rows.append(
            {"id": pair.key, **names, "instruction": instruction, "category": pair.category, "truth": kind}
        )
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
    of = {
        "random": order,
        "kept": [i for i in order if i in kept_ids],
        "clean": [i for i in order if i in clean],
    }
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
    copy = [
        float(abs(pair.source.astype(float) - pair.edited.astype(float))[pair.mask].mean() / 255)
        for pair in pairs
    ]
    print(f"{'':10}{'pairs':>7}{'damaged':>9}{'L1 inside':>26}{'L1 outside':>26}")
    table = {}
    for arm, names in arms.items():
        values = np.array([results[arm, seed] for seed in args.seeds])  # [seeds, pairs, 2]
        bad = np.mean([truth[name] != "good" for name in names])
        cells = [interval(values[..., side], groups) for side in (0, 1)]
        table[arm] = {"pairs": len(names), "damaged": bad, "inside": cells[0], "outside": cells[1]}
        text = "".join(f"{'{:.4f} [{:.4f}, {:.4f}]'.format(*cell):>26}" for cell in cells)
        print(f"{arm:10}{len(names):7}{bad:9.1%}{text}")
    for better, worse in (("kept", "random"), ("clean", "random"), ("clean", "kept")):
        both = [np.array([results[arm, seed] for seed in args.seeds])[..., 0] for arm in (better, worse)]
        cell = interval(both[0] - both[1], groups)
        table[f"{better} - {worse}"] = cell
        print(
            f"{better} - {worse}: {cell[0]:+.4f} [{cell[1]:+.4f}, {cell[2]:+.4f}] inside the mask, pair by pair"
        )
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="for data and trained models; used again if it is there")
    add("--landscapes", type=int, default=300, help="of which the pool is made, seven pairs each")
    add("--held-out", type=int, default=16, help="landscapes to measure on")
    add("--steps", type=int, default=1500, help="of training, 12 pairs each")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
