"""score: every candidate is measured by the cascade, cheapest filter first, until it has failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from crispedit.cascade import ERROR, NOT_REACHED, Cascade
from crispedit.pipelines import tables
from crispedit.pipelines.engine import Row, Stage, Work
from crispedit.pipelines.run import Run, score_table
from crispedit.pipelines.steps.select import first_pass
from crispedit.recipe import Pool
from crispedit.record import Sample
from crispedit.shards import journal

TEXTS = ("category", "instruction", "source_caption", "target_caption")


def work(run: Run) -> Work:
    """The candidates whose verdict still needs a score (with `measure_everything`: that lack any score)."""
    recipe, cascade = run.recipe, run.recipe.pair_cascade
    table = score_table(cascade)
    db = tables.connect(run)
    first_pass(run, db)
    lacking = " OR ".join(f's."{name}.measured" IS NOT TRUE' for name in cascade.filters) or "false"
    wanted = f"v.verdict NOT LIKE '{ERROR} edit' AND e.refusal IS NULL AND ({lacking})"
    if not recipe.score.measure_everything:
        wanted = f"v.verdict LIKE '{NOT_REACHED}%'"
    scores = "".join(f', s."{field.name}"' for field in cascade.columns)
    plan = (
        db.sql(f"""
            SELECT e.key, e.edited, e.mask, e.source, e.composed,
                e.category, e.instruction, e.source_caption, e.target_caption {scores}
            FROM verdicts v JOIN candidate e USING (key) LEFT JOIN score s ON s.key = e.key
            WHERE {wanted} ORDER BY e.source_key, e.key
        """)
        .to_arrow_table()
        .to_pylist()
    )
    wire = pa.schema(
        [
            *table.schema,
            *(pa.field(blob, journal.BLOB) for blob in ("source", "edited", "mask")),
            pa.field("composed", pa.bool_()),
            *(pa.field(text, pa.string()) for text in TEXTS),
            pa.field("error", pa.string()),
        ]
    )
    first = next(iter(cascade.filters), None)

    def explode(row: Row) -> Sequence[Row]:
        if (
            row.get("error") is not None and first is not None
        ):  # the images could not be read: no filter could run
            return [{**row, f"{first}.error": row["error"], f"{first}.measured": True}]
        return [row]

    return Work("score", run.folder("score"), table, plan, stages(run), wire, explode, len(plan))


def stages(run: Run) -> list[Stage]:
    """Pools in the cascade's order: one for neighbours that share decoded images, one for each filter that needs a GPU
    or is given actors of its own."""
    recipe, cascade = run.recipe, run.recipe.pair_cascade
    found: list[Stage] = []
    apart = {name for name, f in cascade.filters.items() if recipe.filters[name].apart(f.gpus)}
    for alone, names in groupby(cascade.filters, key=lambda name: name in apart and name):
        own = list(names)
        gpus, pool = (cascade.filters[own[0]].gpus, recipe.filters[own[0]].pool) if alone else (0.0, None)
        called = own[0] if alone else "filters" if not found else f"filters from {own[0]}"
        everything = recipe.score.measure_everything
        found.append(Scoring(called, cascade, own, run.root, pool or recipe.score.pool, everything, gpus))
    return found or [Scoring("filters", cascade, [], run.root, recipe.score.pool, False)]


@dataclass
class Scoring:
    """Runs the filters that share one actor pool, on images decoded once."""

    name: str
    cascade: Cascade
    own: Sequence[str]
    root: Path
    pool: Pool
    everything: bool
    gpus: float = 0.0

    def load(self) -> None:
        for name in self.own:
            self.cascade.filters[name].load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        done = [dict(row) for row in rows]
        self.cascade.measure(
            [self._sample(row) for row in rows], done, own=self.own, everything=self.everything
        )
        return done

    def _sample(self, row: Row) -> Sample:
        edit = self.root / "edit"
        return Sample(
            key=row["key"],
            source_jpeg=journal.read_blob(edit if row["composed"] else self.root / "curate", row["source"]),
            edited_jpeg=journal.read_blob(edit, row["edited"]),
            mask_png=None if row["mask"] is None else journal.read_blob(edit, row["mask"]),
            **{text: row[text] for text in TEXTS},
        )
