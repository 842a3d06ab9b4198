"""Pairs per second of a whole build, against the bare loop of the same functions on the same photographs.

    python -m benchmarks.pipeline [--photos DIR] [--candidates 500] [--processes 2]

The bare loop normalises, measures, annotates, edits, scores and packs photograph by photograph, in as many processes
as the build has actors, with no tables, no resume and no Ray: the limit of what these functions can do here. Each is
run from the start, in turn, `--repeats` times; medians count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2

from crispedit import images, machine
from crispedit.normalise import normalise
from crispedit.outcome import KEPT
from crispedit.pipelines import build, recipe, sources
from crispedit.pipelines.recipe import Recipe
from crispedit.pipelines.run import Run
from crispedit.pipelines.shipped import landscapes
from crispedit.pipelines.steps import annotate
from crispedit.record import Edit, Job, Sample, candidate_key, seed_of, source_key
from crispedit.shards.pack import Pair, finish, plan, write_shard


def photograph(made: Recipe, entry: sources.Entry) -> list[Pair]:
    """Everything that a build does for one photograph."""
    cv2.setNumThreads(1)
    (data,) = sources.read([entry])
    found = normalise(data, max_pixels=made.curate.max_pixels, max_short_side_px=made.curate.max_short_side_px)
    key, jpeg = source_key(data), images.encode_jpeg(found.image, made.curate.jpeg_quality)
    sample = Sample(key, jpeg, original_width=found.width, original_height=found.height)
    row: dict[str, object] = {}
    made.source_cascade.measure([sample], [row], everything=True)
    if made.source_cascade.verdict(row)[0] != KEPT:
        return []
    wanted = [request["category"] for request in annotate.requests(key, made.categories)]
    ((*answers,),) = [made.annotator.annotate([sample], [wanted])[0]]
    editor = made.editors["compositor"]
    pairs = []
    for job in answers:
        if not isinstance(job, Job):
            continue
        candidate = candidate_key(job.key, "compositor", editor.identity(), 0)
        (edit,) = editor.edit([sample.source], [job], [seed_of(candidate, "edit")])
        if not isinstance(edit, Edit):
            continue
        pair = Sample(
            candidate,
            jpeg if edit.source is None else images.encode_jpeg(edit.source),
            images.encode_jpeg(edit.edited),
            None if edit.mask is None else images.encode_mask(edit.mask),
            category=job.category,
            instruction=job.instruction,
            source_caption=job.source_caption,
            target_caption=job.target_caption,
        )
        scores: dict[str, object] = {"category": job.category}
        made.pair_cascade.measure([pair], [scores])
        if made.pair_cascade.verdict(scores)[0] == KEPT:
            meta = {"instruction": job.instruction}
            pairs.append(Pair(candidate, job.category, pair.source_jpeg, pair.edited_jpeg, pair.mask_png, meta))
    return pairs


def bare(made: Recipe, folder: Path, processes: int) -> int:
    """The bare loop; returns the pairs it packed."""
    entries = sources.entries(made.source)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        found = [pair for pairs in pool.map(photograph, [made] * len(entries), entries) for pair in pairs]
    pairs = {pair.key: pair for pair in found}
    keys: dict[str, list[str]] = {}
    for pair in pairs.values():
        keys.setdefault(pair.category, []).append(pair.key)
    masked = {pair.key for pair in pairs.values() if pair.mask_png is not None}
    shards = plan(keys, made.pack.pairs_per_shard, made.pack.seed, masked)
    finish(folder, [write_shard(folder, shard, [pairs[k] for k in shard.keys], "") for shard in shards], {})
    return len(pairs)


def packed(run: Run) -> int:
    import json

    return json.loads((run.folder("shards") / "manifest.json").read_text())["pairs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photographs; without it ten landscapes are rendered")
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--processes", type=int, default=machine.cores())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--in-process", action="store_true", help="time the build without Ray too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        photos = args.photos or root / "photos"
        if args.photos is None:
            landscapes.render(photos, 0, 10, 1536, 1024)
        base = ["configs/embedded.yaml", [f"source.path={photos}"]]
        made = recipe.load(base[0], base[1])
        count = len(sources.entries(made.source))
        each = args.candidates / (count * len(made.categories))
        jobs = {name: max(1, int(each)) for name in made.categories}
        for name in list(jobs)[: round(args.candidates / count) - sum(jobs.values())]:
            jobs[name] += 1
        base[1] += [f"categories.{name}={number}" for name, number in jobs.items()]
        ways = {"bare loop": [], **({"in-process": []} if args.in_process else {}), "ray": []}
        for repeat in range(args.repeats):
            for way, results in ways.items():
                folder = root / f"{way}-{repeat}"
                kind = "ray" if way == "ray" else "inprocess"
                made = recipe.load(base[0], [*base[1], f"run={folder}", f"engine.kind={kind}"])
                start = time.perf_counter()
                if way == "bare loop":
                    pairs = bare(made, folder / "shards", args.processes)
                else:
                    build.build(Run(made))
                    pairs = packed(Run(made))
                results.append((pairs, time.perf_counter() - start))
    limit = statistics.median(seconds for _, seconds in ways["bare loop"])
    rows = count * sum(jobs.values())
    print(f"{count} photographs, {rows} candidates asked for, {args.processes} processes\n")
    print(f"{'':24} {'processes':>9} {'pairs':>6} {'seconds':>8} {'pairs/s':>8} {'time / bare loop':>17}")
    for way, results in ways.items():
        seconds = statistics.median(s for _, s in results)
        pairs = results[0][0]
        processes = 1 if way == "in-process" else args.processes
        name = {"bare loop": "bare loop", "in-process": "build, in this process", "ray": "build, on Ray"}[way]
        print(f"{name:24} {processes:9} {pairs:6} {seconds:8.1f} {pairs / seconds:8.2f} {seconds / limit:17.2f}")


if __name__ == "__main__":
    main()
