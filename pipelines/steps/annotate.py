"""annotate: writes edit jobs for kept photographs, a number per category for each photograph."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crispedit.classifier import CATEGORIES, asked
from crispedit.parts import Annotator
from crispedit.pipelines.recipe import CategorySpec
from crispedit.pipelines.records import ANNOTATE, TOKENS, Request
from crispedit.pipelines.scheduling.flow import Row, Stage, failed
from crispedit.pipelines.steps.step import ActiveWave, PartStage, Step, Subject
from crispedit.record import Job, Refusal, Sample, canonical_json, content_key, seed_of
from crispedit.shards import journal

REQUEST = pa.struct([("key", pa.string()), ("category", pa.string()), ("ordinal", pa.int32()), ("new", pa.bool_())])
ANSWER = pa.struct([field for field in ANNOTATE.schema if field.name != "source_key"])
WIRE = pa.schema(
    [
        *journal.columns(pa.string(), "key", "caption", "error"),
        ("transient", pa.bool_()),
        ("image", journal.BLOB),
        ("requests", pa.list_(REQUEST)),
        ("answers", pa.list_(ANSWER)),
    ]
)
"""A row between stages is a photograph with all its requests: its jobs are committed together."""


class AnnotateStep(Step):
    """The step. No more jobs are requested in full categories (`ActiveWave.full`)."""

    name = "annotate"
    table = ANNOTATE
    wire = WIRE

    @property
    def stages(self) -> list[Stage]:
        spec = self.recipe.annotate
        return [AnnotateStage(self.recipe.annotator, self.run.root, spec.pool, spec.least_category_probability)]

    def identity(self) -> dict[str, Any]:
        least = self.recipe.annotate.least_category_probability
        agreed = {"least_category_probability": least} if least else {}
        return super().identity() | {"annotator": self.recipe.annotator.identity(), **agreed}

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(row["source_key"]):
            subject.requests[row["key"]] = Request.of(row)

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        if wave.full is None:
            return
        asked = [
            {**request, "new": wave.lacks(there)}
            for request in requests(subject.key, self.recipe.categories)
            if (there := subject.requests.get(request["key"])) is not None or request["category"] not in wave.full
        ]
        if any(request["new"] for request in asked):
            photograph = subject.photographs[0]
            yield {"key": subject.key, "image": photograph.image, "caption": photograph.caption, "requests": asked}

    def transient(self, row: Row) -> bool:
        return super().transient(row) or any(answer.get("transient") for answer in row.get("answers") or ())

    @staticmethod
    def explode(row: Row) -> Sequence[Row]:
        """The annotator saw every request, so that its jobs differ; results for requests that have a row already are
        dropped. If the whole photograph failed, each of its requests did."""
        failed = {name: row[name] for name in ("error", "transient")} if row.get("error") is not None else None
        return [
            {**answer, "source_key": row["key"], **(failed or {})}
            for request, answer in zip(row["requests"], row["requests" if failed else "answers"], strict=True)
            if request["new"]
        ]


def requests(source_key: str, categories: Mapping[str, CategorySpec]) -> list[Row]:
    """The requests for one photograph: the whole number of jobs, and one more for a share of the photographs, chosen by
    key.

    Raising `jobs` only adds requests, so a run can be extended.
    """
    rows = []
    for category, spec in categories.items():
        chance = seed_of(source_key, f"jobs of {category}") / 2**63
        for ordinal in range(math.floor(spec.jobs) + (chance < spec.jobs % 1)):
            key = content_key("request", source_key, category, str(ordinal))
            rows.append({"key": key, "category": category, "ordinal": ordinal})
    return sorted(rows, key=lambda request: (request["ordinal"], request["category"]))


@dataclass
class AnnotateStage(PartStage):
    """Runs the annotator on photographs and turns its results into rows."""

    name = "annotate"
    part: Annotator
    least_category_probability: float = 0.0

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        sources = [journal.read_blob(self.root, row["image"]) for row in rows]
        samples = [
            Sample(key=row["key"], source_jpeg=source, source_caption=row["caption"])
            for row, source in zip(rows, sources, strict=True)
        ]
        answers = self.part.annotate(samples, [[r["category"] for r in row["requests"]] for row in rows])
        return [
            {**row, "answers": [self._answer(r, a) for r, a in zip(row["requests"], of_row, strict=True)]}
            for row, of_row in zip(rows, answers, strict=True)
        ]

    def _answer(self, request: Row, answer: Job | Refusal | Exception) -> Row:
        if isinstance(answer, Job) and not self._agrees(answer):
            answer = Refusal("category_mismatch", answer)
        if isinstance(answer, Exception):
            return failed(request, answer)
        if isinstance(answer, Job):
            return {**request, "job_key": answer.key, **_words(answer)}
        return {**request, "refusal": answer.reason, **(_words(answer.job) if answer.job else {})}

    def _agrees(self, job: Job) -> bool:
        """Whether the job's instruction asks for its category. One that the classifier cannot read passes."""
        chances = asked(job.instruction) if job.category in CATEGORIES else None
        return chances is None or chances[job.category] >= self.least_category_probability


def counted(tokens: tuple[int, int] | None) -> Row:
    return dict(zip(TOKENS, tokens or (None, None), strict=True))


def _words(job: Job) -> Row:
    texts = {name: getattr(job, name) for name in ("instruction", "source_caption", "target_caption")}
    return {**texts, "plan": canonical_json(job.plan), **counted(job.tokens)}
