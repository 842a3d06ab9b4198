"""compare: for each job with several passing candidates, the judge looks at all of them and names the best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crispedit import images
from crispedit.filters.judge import Contest, Judge, PreferredCandidate
from crispedit.outcome import KEPT, NOT_REACHED, TRANSIENT
from crispedit.pipelines.building.verdicts import of_candidate
from crispedit.pipelines.records import COMPARE, Comparison
from crispedit.pipelines.scheduling.flow import Row, Stage, failed
from crispedit.pipelines.steps.annotate import counted
from crispedit.pipelines.steps.step import ActiveWave, PartStage, Step, Subject
from crispedit.record import content_key
from crispedit.shards import journal

WIRE = pa.schema(
    [
        *COMPARE.schema,
        *journal.columns(pa.string(), "source_key", "instruction"),
        ("source", journal.BLOB),
        ("edited", pa.list_(journal.BLOB)),
    ]
)


class CompareStep(Step):
    """The step, used with `select.judge`."""

    name = "compare"
    table = COMPARE
    wire = WIRE

    @property
    def judge(self) -> Judge:
        assert self.recipe.judge is not None, "select.judge is false: no candidates are to be compared"
        return self.recipe.judge

    @property
    def stages(self) -> list[Stage]:
        spec = self.recipe.filters["judge"]
        pool = spec.pool if spec.apart(self.judge.gpus) else self.recipe.score.pool
        return [CompareStage(self.judge, self.run.root, pool)]

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"judge": self.judge.comparison()}

    def subject(self, wave: ActiveWave, row: Row) -> str:
        return wave.owners.get(row["candidates"][0], ("", ""))[0]

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(self.subject(wave, row)):
            subject.comparisons[row["key"]] = Comparison.of(row)

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        """Jobs with several passing candidates and none in work. A job whose candidates have different composed sources
        is left out: they cannot be compared with one picture."""
        for job, request in subject.jobs().items():
            candidates = sorted(subject.candidates.get(job, {}).values(), key=lambda one: one.key)
            if any((step, candidate.key) in wave.out for candidate in candidates for step in ("edit", "score")):
                continue
            outcomes = [of_candidate(self.recipe, candidate)[0] for candidate in candidates]
            passing = [c for c, outcome in zip(candidates, outcomes, strict=True) if outcome == KEPT]
            sources = {None if one.source is None else one.source["xxh3_64"] for one in passing}
            if len(passing) < 2 or len(sources) > 1 or {NOT_REACHED, TRANSIENT} & set(outcomes):
                continue
            keys = [candidate.key for candidate in passing]
            key = content_key("compare", *keys)
            if wave.lacks(subject.comparisons.get(key)):
                yield {
                    **request.row(),
                    "key": key,
                    "candidates": keys,
                    "edited": [candidate.edited for candidate in passing],
                    "source": passing[0].source or subject.photographs[0].image,
                }


@dataclass
class CompareStage(PartStage):
    """Shows the judge the candidates of a batch of jobs."""

    name = "compare"
    part: Judge

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        contests = []
        for row in rows:
            references = (row["source"], *row["edited"])
            source, *edited = (images.decode_jpeg(journal.read_blob(self.root, ref)) for ref in references)
            contests.append(Contest(source, row["instruction"], edited))
        return [_chosen(row, choice) for row, choice in zip(rows, self.part.compare(contests), strict=True)]


def _chosen(row: Row, choice: PreferredCandidate | Exception) -> Row:
    if isinstance(choice, Exception):
        return failed(row, choice)
    chosen = None if choice.candidate is None else row["candidates"][choice.candidate]
    return {**row, "chosen": chosen, "answers": choice.answers, **counted(choice.tokens)}
