"""annotate: kept photographs become edit jobs, so many of each wanted category a photograph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from crispedit.cascade import describe, each
from crispedit.classifier import CATEGORIES, asked
from crispedit.parts import Annotator
from crispedit.pipelines.engine import Row, Stage, Work
from crispedit.pipelines.recipe import CategorySpec
from crispedit.pipelines.run import ANNOTATE, Run
from crispedit.pipelines.steps import imported
from crispedit.pipelines.steps.select import full_categories, kept_sources
from crispedit.recipe import Pool
from crispedit.record import Job, Refusal, Sample, canonical_json, content_key, seed_of
from crispedit.shards import journal

REQUEST = pa.struct(
    [("key", pa.string()), ("category", pa.string()), ("ordinal", pa.int32()), ("new", pa.bool_())]
)
ANSWER = pa.struct([field for field in ANNOTATE.schema if field.name != "source_key"])
WIRE = pa.schema(
    [
        ("key", pa.string()),
        ("image", journal.BLOB),
        ("caption", pa.string()),
        ("requests", pa.list_(REQUEST)),
        ("answers", pa.list_(ANSWER)),
        ("error", pa.string()),
    ]
)
"""A row between stages is a photograph with all its requests: its jobs are committed together."""


def work(run: Run) -> Work:
    """The requests of kept photographs that have no row yet, but for categories whose quota is reached."""
    if run.recipe.imports_pairs:
        return imported.jobs(run)
    folder = run.folder("annotate")
    known = set(journal.read(folder, ANNOTATE, ["key"]).column("key").to_pylist())
    full = full_categories(run)
    plan = []
    for source in kept_sources(run, ["key", "image", "caption"]).to_pylist():
        wanted = requests(source["key"], run.recipe.categories)
        asked = [
            {**request, "new": request["key"] not in known}
            for request in wanted
            if request["key"] in known or request["category"] not in full
        ]
        if any(request["new"] for request in asked):
            plan.append({**source, "requests": asked})
    rows = sum(request["new"] for row in plan for request in row["requests"])
    return Work("annotate", folder, ANNOTATE, plan, stages(run), WIRE, new_answers, rows)


def stages(run: Run) -> list[Stage]:
    """One pool of annotators."""
    if run.recipe.imports_pairs:
        return imported.job_stages(run)
    annotator = run.recipe.annotator
    spec = run.recipe.annotate
    return [
        Annotation(
            annotator, run.folder("curate"), spec.pool, annotator.gpus, spec.least_category_probability
        )
    ]


def requests(source_key: str, categories: Mapping[str, CategorySpec]) -> list[Row]:
    """What is asked of one photograph: whole jobs always, the fraction left for that fraction of the keys.

    Raising `jobs` only adds requests, so a run can be extended.
    """
    found = []
    for category, spec in categories.items():
        chance = seed_of(source_key, f"jobs of {category}") / 2**63
        for ordinal in range(math.floor(spec.jobs) + (chance < spec.jobs % 1)):
            key = content_key("request", source_key, category, str(ordinal))
            found.append({"key": key, "category": category, "ordinal": ordinal})
    return sorted(found, key=lambda request: (request["ordinal"], request["category"]))


def new_answers(row: Row) -> Sequence[Row]:
    """The rows to commit for a photograph. Its annotator saw every request, so that its jobs differ; the answers to
    those that have a row already are dropped. A photograph that failed as a whole failed each of its requests."""
    answers = row["requests"] if row.get("error") is not None else row["answers"]
    return [
        {
            **answer,
            "source_key": row["key"],
            **({"error": row["error"]} if row.get("error") is not None else {}),
        }
        for request, answer in zip(row["requests"], answers, strict=True)
        if request["new"]
    ]


@dataclass
class Annotation:
    """Runs the annotator over photographs and turns its answers into rows."""

    annotator: Annotator
    photographs: Path
    pool: Pool
    gpus: float = 0.0
    least_category_probability: float = 0.0
    name: str = "annotate"

    def load(self) -> None:
        self.annotator.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        answers = each(self._annotate, rows)
        return [
            {**row, "error": describe(found)}
            if isinstance(found, Exception)
            else {
                **row,
                "answers": [_answer(r, self._agreed(a)) for r, a in zip(row["requests"], found, strict=True)],
            }
            for row, found in zip(rows, answers, strict=True)
        ]

    def _agreed(self, answer: Job | Refusal | Exception) -> Job | Refusal | Exception:
        """The answer, unless it is a job whose words ask for another category than its own."""
        if not isinstance(answer, Job) or answer.category not in CATEGORIES:
            return answer
        chances = asked(answer.instruction)
        if chances is None or chances[answer.category] >= self.least_category_probability:
            return answer  # nothing is held against words that the classifier cannot read
        return Refusal("category_mismatch", answer)

    def _annotate(self, rows: Sequence[Row]) -> Sequence[Sequence[Job | Refusal | Exception]]:
        samples = [
            Sample(
                key=row["key"],
                source_jpeg=journal.read_blob(self.photographs, row["image"]),
                source_caption=row["caption"],
            )
            for row in rows
        ]
        return self.annotator.annotate(samples, [[r["category"] for r in row["requests"]] for row in rows])


def _answer(request: Row, answer: Job | Refusal | Exception) -> Row:
    if isinstance(answer, Exception):
        return {**request, "error": describe(answer)}
    if isinstance(answer, Refusal):
        return {**request, "refusal": answer.reason, **(_words(answer.job) if answer.job else {})}
    return {**request, "job_key": answer.key, **_words(answer)}


def _words(job: Job) -> Row:
    return {
        "instruction": job.instruction,
        "source_caption": job.source_caption,
        "target_caption": job.target_caption,
        "plan": canonical_json(job.plan),
    }
