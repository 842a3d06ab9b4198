"""score: measures every candidate with the cascade, cheapest filter first, until it fails a bound."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit.cascade import failed
from crispedit.outcome import NOT_REACHED, TRANSIENT
from crispedit.pipelines.building.verdicts import of_candidate
from crispedit.pipelines.records import Candidate, Request, score_table
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Row, Stage
from crispedit.pipelines.steps.step import ActiveWave, MeasureStage, Step, Subject, filters
from crispedit.record import Sample
from crispedit.shards import journal

IMAGES = ("source", "edited", "mask")
TEXTS = ("category", "instruction", "source_caption", "target_caption")


class ScoreStep(Step):
    """The step. A candidate is measured while its verdict needs a score (with `measure_everything`, while any is
    missing)."""

    name = "score"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.table = score_table(self.recipe.pair_cascade)
        texts = journal.columns(pa.string(), "source_key", *TEXTS, "error")
        self.wire = pa.schema([*self.table.schema, *journal.columns(journal.BLOB, *IMAGES), *texts])

    @property
    def stages(self) -> list[Stage]:
        """Pools in the cascade's order: one for consecutive filters that share decoded images, one for each filter with
        a GPU or its own actors."""
        recipe, cascade, everything = self.recipe, self.recipe.pair_cascade, self.recipe.score.measure_everything
        stages: list[Stage] = []
        apart = {name for name, f in cascade.filters.items() if recipe.filters[name].apart(f.gpus)}
        groups = [(key, list(own)) for key, own in groupby(cascade.filters, key=lambda name: name in apart and name)]
        for alone, own in groups or [(False, [])]:
            called = own[0] if alone else "filters" if not stages else f"filters from {own[0]}"
            pool = recipe.filters[own[0]].pool if alone else recipe.score.pool
            gpus = cascade.filters[own[0]].gpus if alone else 0.0
            stages.append(ScoreStage(cascade, own, pool, gpus, f"score:{called}", self.run.root, everything))
        return stages

    def identity(self) -> dict[str, Any]:
        return super().identity() | filters(self.recipe.pair_cascade.filters)

    def subject(self, wave: ActiveWave, row: Row) -> str:
        return wave.owners.get(row["key"], ("", ""))[0]

    def load(self, wave: ActiveWave, row: Row) -> None:
        """Later rows of a candidate complement or replace earlier ones."""
        source, job = wave.owners.get(row["key"], ("", ""))
        if subject := wave.subjects.get(source):
            scores = subject.candidates[job][row["key"]].scores
            scores |= {name: value for name, value in row.items() if "." in name and value is not None}
            for name in self.recipe.pair_cascade.filters:
                if row[f"{name}.measured"] and row[f"{name}.error"] is None:
                    scores.pop(f"{name}.error", None)

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        jobs = subject.jobs()
        for job, candidates in subject.candidates.items():
            for candidate in candidates.values():
                if job in jobs and candidate.edited is not None and self._lacks(wave, candidate):
                    yield self._row(wave, subject, jobs[job], candidate)

    def _lacks(self, wave: ActiveWave, candidate: Candidate) -> bool:
        cascade, scores = self.recipe.pair_cascade, candidate.scores
        if wave.retry_errors and any(scores.get(f"{name}.error") for name in cascade.filters):
            return True
        if self.recipe.score.measure_everything:
            return not all(scores.get(f"{name}.measured") for name in cascade.filters)
        return of_candidate(self.recipe, candidate)[0] in (NOT_REACHED, TRANSIENT)

    def _row(self, wave: ActiveWave, subject: Subject, request: Request, candidate: Candidate) -> Row:
        scores = dict(candidate.scores)
        for name in self.recipe.pair_cascade.filters:
            if scores.get(f"{name}.error") and (wave.retry_errors or not scores.get(f"{name}.measured")):
                scores[f"{name}.error"] = scores[f"{name}.measured"] = None
        source = candidate.source or subject.photographs[0].image
        return {**request.row(), **candidate.row(), **scores, "source": source}

    def transient(self, row: Row) -> bool:
        return self.recipe.pair_cascade.has_transient_error(row)

    def failed(self, row: Row, error: Exception) -> Row:
        """The row with an error of the filter that was next."""
        turn = next((name for name in self.recipe.pair_cascade.filters if not row.get(f"{name}.measured")), None)
        return {**row, **({} if turn is None else failed(turn, error))}


@dataclass
class ScoreStage(MeasureStage):
    """Measures pairs with the filters that share one pool, on images decoded once."""

    root: Path = Path()
    everything: bool = False

    def measure(self, rows: Sequence[Row]) -> None:
        samples = []
        for row in rows:
            read = (None if row[name] is None else journal.read_blob(self.root, row[name]) for name in IMAGES)
            source, edited, mask = read
            assert source is not None, f"{row['key']} has no source image"
            texts = {text: row[text] for text in TEXTS}
            samples.append(Sample(key=row["key"], source_jpeg=source, edited_jpeg=edited, mask_png=mask, **texts))
        self.cascade.measure(samples, rows, own=self.own, everything=self.everything)
