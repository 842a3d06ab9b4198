"""pack: writes the selected pairs as WebDataset shards by a deterministic plan; each shard is an independent task."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from crispedit import console, images
from crispedit.outcome import KEPT
from crispedit.pipelines import steps, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Row
from crispedit.pipelines.sharing import card
from crispedit.pipelines.steps.select import SELECTION, digest_of
from crispedit.record import canonical_json, content_key
from crispedit.repair import resampled, resampled_mask
from crispedit.shards import journal, layout, storage
from crispedit.shards.index import read_index, read_manifest
from crispedit.shards.layout import Pair
from crispedit.shards.pack import ShardEntry, ShardPlan, committed, finish, plan_table, write_shard

TOGETHER = 400_000
"""Pairs whose rows are in memory at once."""
META = (
    *("instruction", "source_caption", "target_caption", "editor", "editor_version", "seed", "source_key", "job_key"),
    *("uri", "sha256", "licence", "dataset", "scores"),
)
"""Columns that a pair's JSON has under the same names."""


def pack(run: Run) -> list[ShardEntry]:
    """Write the missing shards, remove those of an earlier plan, and write the manifest last.

    Call inside `cluster(engine)`. ValueError if nothing has been selected yet, or if `pack.to` holds another run's set.
    """
    selection = run.folder("select") / SELECTION
    if not selection.exists():
        raise ValueError(f"{selection} is missing: run `crispedit select` first")
    place = run.shards
    if run.recipe.pack.to is not None and storage.exists(storage.join(place, layout.MANIFEST)):
        _check_own(run, place)
    written = _written(run, planned(run, selection))
    entries = list(tqdm(written, desc="    pack", unit="shard", disable=not console.shows_progress()))
    with storage.replaced(storage.join(place, "README.md")) as out:
        out.write(card.text(run, entries).encode())
    if (drawn := card.examples(run)) is not None:
        with storage.replaced(storage.join(place, card.EXAMPLES)) as out:
            out.write(drawn)
    meta = {"recipe_fingerprint": steps.fingerprint(run), "selection": digest_of(pq.read_table(selection))}
    finish(place, entries, meta)
    return entries


def _check_own(run: Run, place: str) -> None:
    """ValueError if another run packed the set at `pack.to`: packing replaces what is there."""
    packed = read_index(place, read_manifest(place)).select(["key"])
    with tables.connect(run) as db:
        db.register("packed", packed)
        foreign = db.sql("SELECT count(DISTINCT key) FROM packed ANTI JOIN edit USING (key)").fetchall()[0][0]
    if foreign:
        raise ValueError(
            f"pack.to: {place} holds {foreign} pairs that are not of this run; give another place, or remove that set"
        )


def planned(run: Run, selection: Path) -> Iterator[pa.Table]:
    """A table of the pairs of each planned shard, in order."""
    with tables.connect(run) as db:
        kept = pq.read_table(selection, filters=[("outcome", "=", KEPT)], columns=["key", "category"])
        db.register("kept", kept)
        pairs = db.sql("""
            SELECT k.key, k.category, coalesce(e.mask IS NOT NULL, false) AS masked
            FROM kept k LEFT JOIN edit e USING (key)
        """).to_arrow_table()
    places = plan_table(pairs, run.recipe.pack.pairs_per_shard, run.recipe.pack.seed)
    starts = [0, *_starts(places), len(places)]
    while len(starts) > 1:
        # Whole shards, of about TOGETHER pairs: the columns of all pairs at once would not fit into the memory.
        last = max(1, bisect_right(starts, starts[0] + TOGETHER) - 1)
        yield from _rows(run, places.slice(starts[0], starts[last] - starts[0]))
        starts = starts[last:]


def _rows(run: Run, places: pa.Table) -> Iterator[pa.Table]:
    """A table of the pairs of each shard in `places`, in order; whole shards only."""
    scores = "".join(f', s."{score}"' for score in run.recipe.pair_cascade.scores)
    with tables.connect(run, keys=places.select(["key"])) as db:
        db.register("places", places)
        rows = db.sql(f"""
            SELECT p.shard, p.masked, e.key, e.job_key, e.category, e.editor, e.editor_version, e.options, e.seed,
                e.width, e.height, e.transform, e.drift, e.edited, e.mask, e.source, e.composed, e.instruction,
                e.source_caption, e.target_caption, e.source_key, e.uri, e.id, e.sha256, e.licence, e.dataset{scores}
            FROM places p LEFT JOIN candidate e USING (key) LEFT JOIN score s ON s.key = e.key
            ORDER BY p.shard, p.place
        """).to_arrow_reader(8192)
        rest = rows.schema.empty_table()
        for batch in rows:
            rest = pa.concat_tables([rest, pa.Table.from_batches([batch])])
            starts = _starts(rest)
            for first, end in pairwise([0, *starts]):
                yield rest.slice(first, end - first)
            rest = rest.slice(starts[-1] if starts else 0)
        if len(rest):
            yield rest


def _starts(rows: pa.Table) -> list[int]:
    """The rows at which a shard begins, without the first."""
    shard = rows.column("shard")
    return [int(at) + 1 for at in np.flatnonzero(pc.not_equal(shard[1:], shard[:-1]).to_numpy())]


def _identity(row: Mapping[str, Any]) -> Row:
    """What determines a pair's bytes in the shard: everything except the images' locations in the run."""
    return {
        name: value["xxh3_64"] if isinstance(value, dict) and "xxh3_64" in value else value
        for name, value in row.items()
    }


def _written(run: Run, planned: Iterator[pa.Table]) -> Iterator[ShardEntry]:
    """Yield the shards as they are finished. On Ray only a few more tasks are sent than are running, to save the
    driver's memory."""
    arguments = run.root.absolute(), run.shards, steps.fingerprint(run), list(run.recipe.pair_cascade.scores)
    if run.recipe.engine.kind == "inprocess":
        yield from (_shard(*arguments, rows) for rows in planned)
        return
    import ray

    remote: Callable[..., Any] = ray.remote(num_cpus=0.9, max_retries=3)(_shard).remote
    most = 2 * math.ceil(ray.cluster_resources().get("CPU", 1.0)) + 2
    waiting: list[Any] = []
    for rows in planned:
        if len(waiting) >= most:
            (done,), waiting = ray.wait(waiting)
            yield ray.get(done)
        waiting.append(remote(*arguments, rows))
    while waiting:
        (done,), waiting = ray.wait(waiting)
        yield ray.get(done)


def _shard(root: Path, place: str, fingerprint: str, scores: Sequence[str], planned: pa.Table) -> ShardEntry:
    rows = planned.to_pylist()
    if (lost := next((row for row in rows if row["key"] is None), None)) is not None:
        raise AssertionError(f"a pair of {lost['shard']} is not in the tables: they lost rows")
    shard = ShardPlan(rows[0]["shard"], rows[0]["category"], tuple(row["key"] for row in rows), rows[0]["masked"])
    for row in rows:
        row["scores"] = {score: row.pop(score) for score in scores}
    digest = content_key(canonical_json([_identity(row) for row in rows]), fingerprint)
    pairs = (_pair(root, fingerprint, row) for row in rows)
    return committed(place, shard, digest) or write_shard(place, shard, pairs, digest)


def at_size_of(source: bytes, edited: bytes) -> bytes:
    """The edited JPEG, resized to its source's size if that differs; the aspect must be equal."""
    if images.jpeg_size(source) == images.jpeg_size(edited):
        return edited
    return images.encode_jpeg(resampled(images.decode_jpeg(edited), images.decode_jpeg(source)))


def _pair(root: Path, fingerprint: str, row: Row) -> Pair:
    source, edited = (journal.read_blob(root, row[name]) for name in ("source", "edited"))
    mask = None if row["mask"] is None else journal.read_blob(root, row["mask"])
    size, own_size = images.jpeg_size(source), images.jpeg_size(edited)
    optional = {name: row[name] for name in ("id", "transform", "drift")}
    if size != own_size:  # same aspect, or select would have rejected it
        optional["resampled_from"] = list(own_size)
        edited = at_size_of(source, edited)
        if mask is not None:
            mask = images.encode_mask(resampled_mask(images.decode_mask(mask), images.decode_jpeg(source)))
    meta = {
        **{name: row[name] for name in META},
        "width": size[0],
        "height": size[1],
        "editor_options": row["options"],
        "source_is_composed": row["composed"],
        "recipe_fingerprint": fingerprint,
        **{name: value for name, value in optional.items() if value is not None},
    }
    return Pair(row["key"], row["category"], source, edited, mask, meta)
