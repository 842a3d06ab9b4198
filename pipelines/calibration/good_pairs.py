"""Good pairs: the input of calibration, from a run or a shard set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from crispedit import console
from crispedit.pipelines import build, tables
from crispedit.pipelines.calibration.labels import Label
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.record import Sample, content_key
from crispedit.shards import journal
from crispedit.shards.read import ShardReader


@dataclass(frozen=True)
class GoodPair:
    """A stored good pair, and its photograph."""

    photograph: str
    category: str
    stored: Mapping[str, Any]
    """The fields of a `Sample`."""


def run_pairs(of: Run) -> list[GoodPair]:
    """Every edited candidate of a run, in key order. A run without a selection is built, or resumed, up to edit."""
    if not (of.folder("select") / SELECTION).exists():
        for step in ("curate", "annotate", "edit"):
            build.step(of, step)
    root = of.root
    rows = (
        tables.connect(of)
        .sql("""
        SELECT key, category, source_key, edited, mask, source, composed, instruction, source_caption, target_caption
        FROM candidate WHERE edited IS NOT NULL ORDER BY key""")
        .to_arrow_table()
    )
    return [
        GoodPair(
            photograph=row["source_key"],
            category=row["category"],
            stored={
                "key": row["key"],
                "source_jpeg": journal.read_blob(root, row["source"]),
                "edited_jpeg": journal.read_blob(root, row["edited"]),
                "mask_png": None if row["mask"] is None else journal.read_blob(root, row["mask"]),
                **{name: row[name] for name in ("category", "instruction", "source_caption", "target_caption")},
            },
        )
        for row in rows.to_pylist()
    ]


def shard_pairs(path: str) -> list[GoodPair]:
    """Every pair of a shard set, in key order. Photographs are identified by `source_key`; without it, all count as
    different."""
    texts = ("instruction", "source_caption", "target_caption")
    pairs = [
        GoodPair(
            photograph=str(pair.meta.get("source_key") or pair.key),
            category=pair.category,
            stored={
                "key": pair.key,
                "source_jpeg": pair.source_jpeg,
                "edited_jpeg": pair.edited_jpeg,
                "mask_png": pair.mask_png,
                "category": pair.category,
                **{text: pair.meta.get(text) for text in texts},
            },
        )
        for pair in ShardReader(path, decode=False)
    ]
    return sorted(pairs, key=lambda pair: str(pair.stored["key"]))


def spread(pairs: Sequence[GoodPair], limit: int | None) -> list[GoodPair]:
    """At most `limit` pairs, from as many photographs and categories as possible."""
    turn: Counter[tuple[str, str]] = Counter()
    ranked: list[tuple[int, int, GoodPair]] = []
    for pair in sorted(pairs, key=lambda pair: content_key("calibrate", str(pair.stored["key"]))):
        ranked.append((turn[pair.photograph, pair.category], len(ranked), pair))
        turn[pair.photograph, pair.category] += 1
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])[:limit]]


def names(of: Run) -> dict[str, list[str | None]]:
    """The other names of each candidate's pair, by key: the user's own id, and its uri in the source."""
    rows = tables.connect(of).sql("SELECT key, options FROM edit ORDER BY key").fetchall()
    names_of: dict[str, list[str | None]] = {}
    for key, options in rows:
        given = json.loads(options or "{}")
        names_of[key] = [given.get("id"), given.get("uri")]
    return names_of


def labelled_rows(
    of: Run, labels: Mapping[str, Label], known: Mapping[str, Sequence[str | None]]
) -> list[dict[str, Any]]:
    """The scores of every labelled candidate, with the person's verdict: the rows for `labelled.judged`. Scores that
    the run has not measured are measured now."""
    cascade = of.recipe.pair_cascade
    committed = {row["key"]: row for row in tables.connect(of).sql("SELECT * FROM score").to_arrow_table().to_pylist()}
    rows = []
    pairs = [pair for pair in run_pairs(of) if pair.stored["key"] in labels]
    for filter_ in cascade.filters.values():
        filter_.load()
    for pair in tqdm(pairs, desc="measure", unit="pair", disable=not console.shows_progress()):
        key = str(pair.stored["key"])
        row: dict[str, Any] = dict(committed.get(key) or {}) | {"category": pair.category}
        cascade.measure([Sample(**pair.stored)], [row], everything=True)
        label = labels[key]
        own = next((name for name in known.get(key, ()) if name is not None), key)
        row |= {"key": key, "id": own, "good": label.good, "verdict": label.verdict, "group": label.group or own}
        rows.append(row)
    return rows
