"""Good pairs: the input of calibration, from a run or a shard set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from crispedit.pipelines import build, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.record import Sample, content_key
from crispedit.shards import journal
from crispedit.shards.read import ShardReader


@dataclass(frozen=True)
class GoodPair:
    """A good pair and the key of its photograph. Pixels are decoded in copies of the sample, so that many fit into
    memory."""

    photograph: str
    sample: Sample


def run_pairs(of: Run) -> list[GoodPair]:
    """Every edited candidate of a run, in key order. A run without a selection is built, or resumed, up to edit."""
    if not (of.folder("select") / SELECTION).exists():
        for step in ("curate", "annotate", "edit"):
            build.step(of, step)
    rows = tables.connect(of).sql("""
        SELECT source_key, source AS source_jpeg, edited AS edited_jpeg, mask AS mask_png,
               key, category, instruction, source_caption, target_caption
        FROM candidate WHERE edited IS NOT NULL ORDER BY key""")
    pairs = []
    for row in rows.to_arrow_table().to_pylist():
        for blob in ("source_jpeg", "edited_jpeg", "mask_png"):
            row[blob] = row[blob] and journal.read_blob(of.root, row[blob])
        pairs.append(GoodPair(row.pop("source_key"), Sample(**row)))
    return pairs


def shard_pairs(path: str) -> list[GoodPair]:
    """Every pair of a shard set, in key order. Photographs are identified by `source_key`; without it, all count as
    different."""
    pairs = []
    for pair in ShardReader(path, decode=False):
        texts = {text: pair.meta.get(text) for text in ("instruction", "source_caption", "target_caption")}
        sample = Sample(pair.key, pair.source_jpeg, pair.edited_jpeg, pair.mask_png, pair.category, **texts)
        pairs.append(GoodPair(str(pair.meta.get("source_key") or pair.key), sample))
    return sorted(pairs, key=lambda pair: pair.sample.key)


def spread(pairs: Sequence[GoodPair], limit: int | None) -> list[GoodPair]:
    """At most `limit` pairs, from as many photographs and categories as possible."""
    turn: Counter[tuple[str, str | None]] = Counter()
    ranked: list[tuple[int, int, GoodPair]] = []
    for pair in sorted(pairs, key=lambda pair: content_key("calibrate", pair.sample.key)):
        ranked.append((turn[pair.photograph, pair.sample.category], len(ranked), pair))
        turn[pair.photograph, pair.sample.category] += 1
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])[:limit]]


def names(of: Run) -> dict[str, list[str | None]]:
    """The other names of each candidate's pair, by key: the user's own id, and its uri in the source."""
    extract = "json_extract_string(options, ['$.id', '$.uri'])"
    return dict(tables.connect(of).sql(f"SELECT key, {extract} FROM edit ORDER BY key").fetchall())
