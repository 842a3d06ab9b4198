"""pack: the selected pairs become WebDataset shards by a deterministic plan, each shard an independent task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from crispedit.cascade import KEPT
from crispedit.pipelines import card, tables
from crispedit.pipelines.engine import Row
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION, digest_of
from crispedit.record import canonical_json, content_key
from crispedit.shards import journal, storage
from crispedit.shards.pack import Pair, ShardEntry, ShardPlan, committed, finish, plan, write_shard

Task = tuple[ShardPlan, list[Row], str]


def pack(run: Run) -> list[ShardEntry]:
    """Write the shards that are not there yet, sweep those of an earlier plan, and the manifest last.

    Call inside `cluster(engine)`. ValueError if nothing has been selected yet.
    """
    selection = run.folder("select") / SELECTION
    if not selection.exists():
        raise ValueError(f"there is no {selection}: run `crispedit select` first")
    place = run.shards
    todo: list[Task] = []
    entries = []
    with tqdm(desc="    pack", unit="shard", disable=None) as bar:

        def flush() -> None:
            for entry in _write(run, todo):
                entries.append(entry)
                bar.update()
            todo.clear()

        for shard, rows in _planned(run, selection):
            digest = content_key(canonical_json([_identity(row) for row in rows]), run.recipe_fingerprint)
            there = committed(place, shard, digest)
            if there is not None:
                entries.append(there)
                bar.update()
                continue
            todo.append((shard, rows, digest))
            if len(todo) >= 64:  # bounds what the driver holds
                flush()
        flush()
    with storage.replaced(storage.join(place, "README.md")) as out:
        out.write(card.text(run, entries).encode())
    finish(
        place,
        entries,
        {"recipe_fingerprint": run.recipe_fingerprint, "selection": digest_of(pq.read_table(selection))},
    )
    return entries


def _planned(run: Run, selection: Path) -> Iterator[tuple[ShardPlan, list[Row]]]:
    """Each shard of the plan with the rows of its pairs, in order."""
    db = tables.connect(run)
    kept = pq.read_table(selection, filters=[("outcome", "=", KEPT)], columns=["key", "category"])
    db.register("kept", kept)
    masked = db.execute("SELECT key FROM kept JOIN edit USING (key) WHERE mask IS NOT NULL").fetchall()
    keys: dict[str, list[str]] = {}
    for row in kept.to_pylist():
        keys.setdefault(row["category"], []).append(row["key"])
    spec = run.recipe.pack
    shards = plan(keys, spec.pairs_per_shard, spec.seed, {key for (key,) in masked})
    places = [
        {"key": key, "shard": number, "place": place}
        for number, shard in enumerate(shards)
        for place, key in enumerate(shard.keys)
    ]
    schema = pa.schema([("key", pa.string()), ("shard", pa.int64()), ("place", pa.int64())])
    db.register("places", pa.Table.from_pylist(places, schema=schema))
    scores = [
        f"{name}.{score}"
        for name, filter_ in run.recipe.pair_cascade.filters.items()
        for score in filter_.scores
    ]
    found = db.sql(f"""
        SELECT p.shard, e.key, e.job_key, e.category, e.editor, e.editor_version, e.options, e.seed, e.width, e.height,
            e.transform, e.edited, e.mask, e.source, e.composed,
            e.instruction, e.source_caption, e.target_caption, e.source_key, e.uri, e.sha256, e.licence, e.dataset
            {"".join(f', s."{score}"' for score in scores)}
        FROM places p JOIN candidate e USING (key) LEFT JOIN score s ON s.key = e.key
        ORDER BY p.shard, p.place
    """).to_arrow_reader(1000)
    rows: list[Row] = []
    for row in (row for batch in found for row in batch.to_pylist()):
        row["scores"] = {score: row.pop(score) for score in scores}
        rows.append(row)
        shard = shards[row["shard"]]
        if len(rows) == len(shard.keys):
            yield shard, rows
            rows = []
    if rows:
        raise AssertionError(f"{len(rows)} pairs of {shard.name} have no place: a table lost rows")


def _identity(row: Mapping[str, Any]) -> Row:
    """What decides a pair's bytes in the shard: everything but where the journal happens to keep its images."""
    return {
        name: value["xxh3_64"] if isinstance(value, dict) and "xxh3_64" in value else value
        for name, value in row.items()
    }


def _write(run: Run, tasks: list[Task]) -> Iterator[ShardEntry]:
    told = run.root.absolute(), run.shards, run.recipe_fingerprint
    if run.recipe.engine.kind == "inprocess" or not tasks:
        yield from (_shard(*told, *task) for task in tasks)
        return
    import ray

    remote: Callable[..., Any] = ray.remote(num_cpus=0.9, max_retries=3)(_shard).remote
    waiting = [remote(*told, *task) for task in tasks]
    while waiting:
        (done,), waiting = ray.wait(waiting, num_returns=1)
        yield ray.get(done)


def _shard(
    root: Path, place: str, fingerprint: str, shard: ShardPlan, rows: list[Row], digest: str
) -> ShardEntry:
    return write_shard(place, shard, (_pair(root, fingerprint, row) for row in rows), digest)


def _pair(root: Path, fingerprint: str, row: Row) -> Pair:
    return Pair(
        key=row["key"],
        category=row["category"],
        source_jpeg=journal.read_blob(root / ("edit" if row["composed"] else "curate"), row["source"]),
        edited_jpeg=journal.read_blob(root / "edit", row["edited"]),
        mask_png=None if row["mask"] is None else journal.read_blob(root / "edit", row["mask"]),
        meta={
            "instruction": row["instruction"],
            "source_caption": row["source_caption"],
            "target_caption": row["target_caption"],
            "width": row["width"],
            "height": row["height"],
            "editor": row["editor"],
            "editor_version": row["editor_version"],
            "editor_options": row["options"],
            "seed": row["seed"],
            "source_is_composed": row["composed"],
            "source_key": row["source_key"],
            "job_key": row["job_key"],
            "uri": row["uri"],
            "sha256": row["sha256"],
            "licence": row["licence"],
            "dataset": row["dataset"],
            "scores": row["scores"],
            "recipe_fingerprint": fingerprint,
            **({} if row["transform"] is None else {"transform": row["transform"]}),
        },
    )
