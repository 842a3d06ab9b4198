"""Synthetic runs: every table as in a real run after compaction, without the images.

Jobs have one or two candidates, cascades stop at the first failed bound, some filters failed, some scores are unknown,
photographs repeat, instructions occur thousands of times, and there are near-duplicate pairs; about two thirds of the
pairs are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crispedit.bounds import Bound
from crispedit.pipelines import recipe, steps
from crispedit.pipelines.building import listing
from crispedit.pipelines.building.stream import Build, policy
from crispedit.pipelines.building.verdicts import Photographs
from crispedit.pipelines.building.waves import Finished, Wave, Waves
from crispedit.pipelines.records import ANNOTATE, EDIT, curate_table, score_table
from crispedit.pipelines.run import Run
from crispedit.pipelines.sources import Entry
from crispedit.shards import journal

WAVE = 10_000
"""Photographs of a wave, and of a tar."""
PER_TAR = 1_000
STYLES = 100
"""Instructions of the category `style`; they know no object, so few texts serve very many jobs."""
INSTRUCTIONS = 100_000
"""Of all the other categories."""
FAILS, ERRS, UNREACHED, UNKNOWN = 0.025, 0.001, 0.002, 0.05
"""Shares of the rows that reach a filter: rejected, failed with an error, not measured yet; and the share of its scores
that are null."""
REPEATED = 0.05
"""The share of photographs, and of candidates, that nearly repeat the last but one."""


def keys_of(rng: np.random.Generator, count: int) -> pa.Array:
    """`count` keys of 32 hex digits."""
    offsets = pa.py_buffer(np.arange(0, 32 * count + 1, 32, dtype=np.int32))
    return pa.StringArray.from_buffers(count, offsets, pa.py_buffer(rng.bytes(16 * count).hex().encode()))


def near(rng: np.random.Generator, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The hashes, some of which differ in one bit from the last but one, or in none."""
    at = np.flatnonzero(rng.random(len(hashes)) < REPEATED)
    at = at[at > 1]
    flipped = np.where(rng.random(len(at)) < 0.5, 0, np.int64(1) << rng.integers(0, 63, len(at)))
    hashes[at] = hashes[at - 2] ^ flipped
    return hashes


def drawn(
    rng: np.random.Generator, kind: type, low: NDArray[np.float64], high: NDArray[np.float64], fails: NDArray[np.bool_]
) -> NDArray[np.float64] | NDArray[np.int64]:
    """A score within each row's bounds (NaN: none), or beyond them where the row fails."""
    spread = rng.random(len(fails))
    floor = np.where(np.isnan(low), np.where(np.isnan(high), 0.0, np.minimum(high, 0.0)), low)
    width = np.where(np.isnan(high), 1.0, high - floor)
    beyond = np.where(np.isnan(high), low - 0.001 - spread, high + 0.001 + spread)
    values = np.where(fails, beyond, floor + width * spread)
    return np.where(fails, values, np.ceil(values)).astype(np.int64) if kind is int else values


def score_columns(
    run: Run, rng: np.random.Generator, category: NDArray[np.str_], photograph: NDArray[np.int64]
) -> dict[str, pa.Array]:
    """The cascade's columns for candidates of these categories and photographs."""
    cascade, rows = run.recipe.pair_cascade, len(category)
    hashes = {
        "phash": rng.integers(-(2**63), 2**63 - 1, rows)[photograph],  # the candidates of one have one
        "edited_phash": near(rng, rng.integers(-(2**63), 2**63 - 1, rows)),
    }
    names, of_row = np.unique(category, return_inverse=True)
    alive = np.ones(rows, np.bool_)
    columns: dict[str, pa.Array] = {}
    for name, filter_ in cascade.filters.items():
        measured = alive & (rng.random(rows) >= UNREACHED)
        errs = measured & (rng.random(rows) < ERRS)
        fails = measured & ~errs & (rng.random(rows) < FAILS)
        failed = np.zeros(rows, np.bool_)
        for score, kind in filter_.scores.items():
            bounds = [cascade.bounds_of(str(of)).get(f"{name}.{score}", Bound()) for of in names]
            low = np.array([np.nan if bound.min is None else bound.min for bound in bounds])[of_row]
            high = np.array([np.nan if bound.max is None else bound.max for bound in bounds])[of_row]
            now = fails & ~failed & ~(np.isnan(low) & np.isnan(high))
            failed |= now
            known = measured & ~errs & ((rng.random(rows) >= UNKNOWN) | now)
            if name == "duplicate":
                values = hashes[score]
            else:
                values = drawn(rng, kind, low, high, now)
            columns[f"{name}.{score}"] = pa.array(values, mask=~known)
        columns[f"{name}.measured"] = pa.array(np.ones(rows, np.bool_), mask=~measured)
        columns[f"{name}.error"] = pa.array(np.full(rows, "ValueError: no"), pa.string(), mask=~errs)
        alive = measured & ~errs & ~failed
    return columns


def write(folder: Path, schema: pa.Schema, columns: dict[str, pa.Array], rows: int, part: int) -> None:
    """Write a part with these columns; the others are null."""
    folder.mkdir(parents=True, exist_ok=True)
    full = [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(rows, f.type) for f in schema]
    pq.write_table(pa.Table.from_arrays(full, schema=schema), folder / f"part-{part:032x}.parquet", compression="zstd")


def fill(run: Run, wave: Wave, candidates: int, jobs: int | None = None) -> None:
    """Write every table of a wave, as after compaction, with this many candidates and jobs (None: one or two candidates
    each)."""
    rows, source_count, part = candidates, wave.photographs, wave.number
    rng = np.random.default_rng(part)
    sources, uris = keys_of(rng, source_count), [f"{part:05d}/{n:06d}.jpg" for n in range(source_count)]
    again = np.arange(source_count) - (rng.random(source_count) < REPEATED / 4)  # the same bytes as the file before
    sources = sources.take(pa.array(np.maximum(again, 0)))
    measured = {f"{n}.measured": pa.array(np.ones(source_count, bool)) for n in run.recipe.source_cascade.filters}
    hashes = pa.array(near(rng, rng.integers(-(2**63), 2**63 - 1, source_count)))
    refusal = pa.array(np.full(source_count, "animated"), pa.string(), mask=rng.random(source_count) > 0.01)
    image = {"tar": f"curate/{wave.name}/part-0.tar", "offset": 0, "size": 1, "xxh3_64": 0}
    curate = {
        "image": pa.array([image] * source_count, journal.BLOB),
        "uri": pa.array(uris),
        "key": sources,
        "duplicate.phash": hashes,
        "refusal": refusal,
        **measured,
    }
    write(
        run.folder("curate") / wave.name,
        curate_table(run.recipe.source_cascade).committed_schema,
        curate,
        source_count,
        part,
    )
    if not candidates:
        return
    several = np.repeat(np.arange(rows * 2 // 3), 2) if jobs is None else np.arange(rows) % jobs
    jobs_of = np.sort(rng.permutation(several)[:rows])
    _, owner, candidate_job = np.unique(jobs_of, return_index=True, return_inverse=True)
    seed = np.arange(rows) - owner[candidate_job]
    count = len(owner)
    categories = np.array(list(run.recipe.categories))
    category = categories[rng.integers(len(categories), size=count)]
    number = np.where(category == "style", rng.integers(STYLES, size=count), rng.integers(INSTRUCTIONS, size=count))
    number[1:] = np.where(rng.random(count - 1) < 0.3, number[:-1], number[1:])  # near-duplicates need one text
    words = pa.array(np.strings.add(np.strings.add(category, ": an Instruction with number "), number.astype(str)))
    photograph = np.arange(count) * source_count // count
    job = {
        "key": keys_of(rng, count),
        "job_key": keys_of(rng, count),
        "source_key": sources.take(pa.array(photograph)),
        "category": pa.array(category),
        "instruction": words,
    }
    write(run.folder("annotate") / wave.name, ANNOTATE.committed_schema, job, count, part)
    of_job = pa.array(candidate_job)
    edit = {"key": keys_of(rng, rows), "editor": pa.array(np.full(rows, "compositor")), "seed": pa.array(seed)}
    edit |= {name: job[name].take(of_job) for name in ("job_key", "source_key", "category")}
    failed = rng.random(rows)
    edit["refusal"] = pa.array(np.full(rows, "no_room"), pa.string(), mask=failed > 0.03)
    edit["error"] = pa.array(np.full(rows, "ValueError: no"), pa.string(), mask=failed < 0.999)
    write(run.folder("edit") / wave.name, EDIT.committed_schema, edit, rows, part)
    there = np.flatnonzero((failed > 0.03) & (failed < 0.999))
    of = candidate_job[there]
    scores = {"key": edit["key"].take(pa.array(there)), **score_columns(run, rng, category[of], photograph[of])}
    write(
        run.folder("score") / wave.name, score_table(run.recipe.pair_cascade).committed_schema, scores, len(there), part
    )


def run_of(root: Path, photographs: int, jobs_per_photograph: float) -> Run:
    """A run with this many photographs, whose last wave is in work: its photographs are curated but not judged, and
    there are no jobs yet."""
    tars = root / "source"
    tars.mkdir(parents=True)
    run = Run(recipe.load("embedded", [f"run={root / 'run'}", f"source={{kind: webdataset, path: {tars}}}"]))
    made = steps.identities(steps.of(run))
    run.begin(made)
    run.store_recipe(made)
    waves = Waves(run)
    for first in range(0, photographs, WAVE):
        count = min(WAVE, photographs - first)
        names = [f"{n:08d}.tar" for n in range(first // PER_TAR, (first + count) // PER_TAR)]
        for name in names:
            (tars / name).touch()
        listed = [_listed(tars, waves, name) for name in names]
        journal.commit(run.folder("listing"), listing.table(run.recipe.source), listed)
        wave = waves.add(names, count)
        jobs = 0 if first + count >= photographs else round(count * jobs_per_photograph)
        fill(run, wave, jobs, jobs)
    Photographs(run, waves).of(len(waves) - 2)
    flow = Build(run)
    for wave in list(waves)[:-1]:
        assert wave.judged is not None, "all waves but the last were judged"
        parts = flow.parts_of(wave.name)
        waves.change(wave.number, finished=Finished(policy(run), wave.judged.digest, parts, {"add": 1}))
    return run


def _listed(tars: Path, waves: Waves, tar: str) -> dict[str, Any]:
    """The row of a tar in the listing."""
    first = (len(waves), PER_TAR * (int(tar[:8]) % (WAVE // PER_TAR)))
    members = [
        Entry(f"{first[0]:05d}/{first[1] + n:06d}.jpg", str(tars / tar), 512 + n * 300_000, 299_000).to_row()
        for n in range(PER_TAR)
    ]
    row = {"key": tar, "container": tar, "slice": 0, "last": True, "files": [tar], "rows": PER_TAR}
    return {**row, "members": members, "skipped": []}
