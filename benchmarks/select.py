"""Seconds and memory of `select` over millions of synthetic score rows, beside the bare scan of the same columns.

python -m benchmarks.select [--rows 5000000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import recipe, tables
from pipelines.run import ANNOTATE, EDIT, Run, curate_table, score_table
from pipelines.steps import select

PER_SOURCE = 10


def hexadecimal(rng: np.random.Generator, count: int) -> pa.Array:
    """`count` keys of 32 hex digits."""
    digits = np.frombuffer(rng.bytes(count * 16).hex().encode(), dtype="S32")
    return pa.array(digits.astype("U32"))


def write(folder: Path, schema: pa.Schema, columns: dict[str, pa.Array], rows: int, part: int) -> None:
    """A part with these columns; the others null."""
    folder.mkdir(parents=True, exist_ok=True)
    full = [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(rows, f.type) for f in schema]
    pq.write_table(
        pa.Table.from_arrays(full, schema=schema), folder / f"part-{part:032x}.parquet", compression="zstd"
    )


def fill(run: Run, rows: int, parts: int) -> None:
    """Tables of `rows` candidates; a tenth of the scores fail, a twentieth of the rows were not reached."""
    rng = np.random.default_rng(0)
    categories = np.array(list(run.recipe.categories))
    size = rows // parts
    for part in range(parts):
        sources = hexadecimal(rng, size // PER_SOURCE)
        jobs, keys = hexadecimal(rng, size), hexadecimal(rng, size)
        owner = sources.take(pa.array(np.arange(size) // PER_SOURCE))
        category = pa.array(categories[rng.integers(len(categories), size=size)])
        measured = {f"{n}.measured": pa.array(np.ones(size, bool)) for n in run.recipe.pair_cascade.filters}
        uri = pa.array([f"{part}/{n}.jpg" for n in range(len(sources))])
        source_measured = {
            f"{n}.measured": pa.array(np.ones(len(sources), bool)) for n in run.recipe.source_cascade.filters
        }
        hashes = pa.array(rng.integers(-(2**63), 2**63 - 1, len(sources)))
        curate = {"uri": uri, "key": sources, "duplicate.phash": hashes, **source_measured}
        write(
            run.folder("curate"),
            curate_table(run.recipe.source_cascade).committed_schema,
            curate,
            len(sources),
            part,
        )
        words = pa.array([f"instruction {n}" for n in rng.integers(rows, size=size)])
        job = {"key": jobs, "job_key": jobs, "source_key": owner, "category": category, "instruction": words}
        write(run.folder("annotate"), ANNOTATE.committed_schema, job, size, part)
        edit = {"key": keys, "job_key": jobs, "source_key": owner, "category": category}
        edit |= {"editor": pa.array(["compositor"] * size), "seed": pa.array(np.zeros(size, np.int32))}
        write(run.folder("edit"), EDIT.committed_schema, edit, size, part)
        schema = score_table(run.recipe.pair_cascade).committed_schema
        scores = {f.name: pa.array(rng.random(size)) for f in schema if f.type == pa.float64()}
        scores |= {
            f.name: pa.array(rng.integers(-(2**63), 2**63 - 1, size)) for f in schema if f.type == pa.int64()
        }
        write(run.folder("score"), schema, {"key": keys, **scores, **measured}, size, part)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--parts", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(recipe.load("embedded", [f"run={scratch}/run", "source.path=photos"]))
        fill(run, args.rows, args.parts)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        start = time.perf_counter()
        db = tables.connect(run)
        names = [f'sum("{f.name}")' for f in run.recipe.pair_cascade.columns if f.type == pa.float64()]
        db.execute(f"SELECT {', '.join(names)} FROM score").fetchall()
        scan = time.perf_counter() - start
        start = time.perf_counter()
        verdicts = select.select(run)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kept = verdicts.group_by("outcome").aggregate([("key", "count")]).to_pylist()
    print(f"{args.rows} candidates of {args.rows // PER_SOURCE} photographs: {kept}")
    print(f"{'scan of the score columns':28} {scan:7.1f} s")
    print(f"{'select':28} {seconds:7.1f} s   {seconds / scan:.1f} x the scan")
    print(
        f"{'peak memory of the process':28} {peak:7.1f} GB  (before select, with the tables' making: {before:.1f} GB)"
    )


if __name__ == "__main__":
    main()
