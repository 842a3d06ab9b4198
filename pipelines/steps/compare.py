"""compare: of each job with several candidates that pass, the judge's model says which is best, seeing all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from crispedit import images
from crispedit.cascade import describe
from crispedit.filters.judge import Contest, Judge
from crispedit.pipelines import tables
from crispedit.pipelines.engine import Row, Stage, Work
from crispedit.pipelines.run import COMPARE, Run
from crispedit.pipelines.steps.select import contests, first_pass
from crispedit.recipe import Pool
from crispedit.record import content_key
from crispedit.shards import journal

WIRE = pa.schema(
    [
        *COMPARE.schema,
        pa.field("instruction", pa.string()),
        pa.field("source", journal.BLOB),
        pa.field("composed", pa.bool_()),
        pa.field("edited", pa.list_(journal.BLOB)),
    ]
)


def work(run: Run) -> Work:
    """The comparisons that have no row yet; none where the judge is not to choose."""
    plan = []
    if run.recipe.judge is not None:
        db = tables.connect(run)
        first_pass(run, db)
        contests(db)
        plan = (
            db.sql("""
                SELECT k.job_key, k.candidates, list(e.edited ORDER BY e.key) AS edited,
                    any_value(e.instruction) AS instruction, any_value(e.source) AS source,
                    any_value(e.composed) AS composed
                FROM contests k JOIN candidate e ON e.job_key = k.job_key AND list_contains(k.candidates, e.key)
                WHERE k.compared IS NULL GROUP BY k.job_key, k.candidates
                ORDER BY any_value(e.source_key), k.job_key
            """)
            .to_arrow_table()
            .to_pylist()
        )
    for row in plan:
        row["key"] = content_key("compare", *row["candidates"])
    return Work(
        "compare", run.folder("compare"), COMPARE, plan, stages(run), WIRE, lambda row: [row], len(plan)
    )


def stages(run: Run) -> list[Stage]:
    """One pool, of the judge's kind."""
    recipe, judge = run.recipe, run.recipe.judge
    if judge is None:
        return []
    spec = recipe.filters["judge"]
    pool = spec.pool if spec.apart(judge.gpus) else recipe.score.pool
    return [Comparing("judge", judge, run.root, pool, judge.gpus)]


@dataclass
class Comparing:
    """Shows the judge's model the candidates of a batch of jobs."""

    name: str
    judge: Judge
    root: Path
    pool: Pool
    gpus: float = 0.0

    def load(self) -> None:
        self.judge.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        done = []
        for row, choice in zip(rows, self.judge.compare([self._contest(row) for row in rows]), strict=True):
            if isinstance(choice, Exception):
                done.append({**row, "error": describe(choice)})
            else:
                chosen = None if choice.candidate is None else row["candidates"][choice.candidate]
                done.append({**row, "chosen": chosen, "answers": choice.answers})
        return done

    def _contest(self, row: Row) -> Contest:
        edit = self.root / "edit"
        source = journal.read_blob(edit if row["composed"] else self.root / "curate", row["source"])
        edited = [images.decode_jpeg(journal.read_blob(edit, ref)) for ref in row["edited"]]
        return Contest(images.decode_jpeg(source), row["instruction"], edited)
