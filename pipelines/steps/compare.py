"""compare: for each job with several passing candidates, the judge looks at all of them and names the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from crispedit import images
from crispedit.filters.judge import Contest, Judge
from crispedit.outcome import KEPT, NOT_REACHED, TRANSIENT, describe, is_transient
from crispedit.pipelines.building.verdicts import of_candidate
from crispedit.pipelines.records import COMPARE, Candidate, Comparison
from crispedit.pipelines.run import Identity, Run
from crispedit.pipelines.scheduling.flow import Row, Stage
from crispedit.pipelines.steps.annotate import counted
from crispedit.pipelines.steps.curate import photographs
from crispedit.pipelines.steps.step import ActiveWave, Step, Subject, Todo
from crispedit.recipe import Pool
from crispedit.record import content_key
from crispedit.shards import journal

WIRE = pa.schema(
    [
        *COMPARE.schema,
        pa.field("source_key", pa.string()),
        pa.field("instruction", pa.string()),
        pa.field("source", journal.BLOB),
        pa.field("edited", pa.list_(journal.BLOB)),
    ]
)


class CompareStep(Step):
    """The step, used with `select.judge`."""

    name = "compare"
    table = COMPARE
    wire = WIRE

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        if run.recipe.judge is None:
            raise ValueError("select.judge is false: no candidates are to be compared")
        self.judge: Judge = run.recipe.judge

    @property
    def stages(self) -> list[Stage]:
        spec = self.recipe.filters["judge"]
        pool = spec.pool if spec.apart(self.judge.gpus) else self.recipe.score.pool
        return [CompareStage("compare", self.judge, self.run.root, pool, self.judge.gpus)]

    def identity(self) -> Identity:
        return {"photographs": photographs(self.run), "judge": self.judge.comparison()}

    def subject(self, wave: ActiveWave, row: Row) -> str:
        return wave.owners.get(row["candidates"][0], ("", ""))[0]

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(self.subject(wave, row)):
            subject.comparisons[row["key"]] = Comparison.of(row)

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Todo]:
        """Jobs with several passing candidates and none in work. A job whose candidates have different composed sources
        is left out: they cannot be compared with one picture."""
        for job, request in subject.jobs().items():
            candidates = sorted(subject.candidates.get(job, {}).values(), key=lambda one: one.key)
            if wave.waits([candidate.key for candidate in candidates]):
                continue
            outcomes = [of_candidate(self.recipe, candidate)[0] for candidate in candidates]
            passing = [c for c, outcome in zip(candidates, outcomes, strict=True) if outcome == KEPT]
            sources = {None if one.source is None else one.source["xxh3_64"] for one in passing}
            if len(passing) < 2 or len(sources) > 1 or {NOT_REACHED, TRANSIENT} & set(outcomes):
                continue
            key = comparison_key(passing)
            if (there := subject.comparisons.get(key)) is None or wave.again(there):
                yield Todo(
                    ("compare",),
                    {
                        "key": key,
                        "job_key": job,
                        "source_key": subject.key,
                        "candidates": [candidate.key for candidate in passing],
                        "edited": [candidate.edited for candidate in passing],
                        "instruction": request.instruction,
                        "source": passing[0].source or subject.photographs[0].image,
                    },
                )


def comparison_key(candidates: Sequence[Candidate]) -> str:
    """The key of a comparison of these candidates, in key order."""
    return content_key("compare", *(candidate.key for candidate in candidates))


@dataclass
class CompareStage:
    """Shows the judge the candidates of a batch of jobs."""

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
                done.append({**row, "error": describe(choice), "transient": is_transient(choice)})
            else:
                chosen = None if choice.candidate is None else row["candidates"][choice.candidate]
                done.append({**row, "chosen": chosen, "answers": choice.answers, **counted(choice.tokens)})
        return done

    def _contest(self, row: Row) -> Contest:
        source, *edited = (
            images.decode_jpeg(journal.read_blob(self.root, ref)) for ref in (row["source"], *row["edited"])
        )
        return Contest(source, row["instruction"], edited)
