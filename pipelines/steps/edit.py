"""edit: makes a candidate per job, editor and seed: its images and true mask, a refusal, or an error."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit import images
from crispedit.outcome import ERROR, REJECTED
from crispedit.parts import Editor
from crispedit.pipelines.building.repairing import Repairing
from crispedit.pipelines.building.routing import editor_of
from crispedit.pipelines.building.verdicts import of_candidate
from crispedit.pipelines.records import EDIT, Candidate
from crispedit.pipelines.scheduling.flow import Row, Stage, failed, gpus_of
from crispedit.pipelines.steps.step import ActiveWave, PartStage, Step, Subject
from crispedit.record import Edit, Image, Job, Refusal, candidate_key, canonical_json, seed_of
from crispedit.shards import journal

WORDS = ("instruction", "source_caption", "target_caption", "plan")
WIRE = pa.schema([*EDIT.schema, *((word, pa.string()) for word in WORDS), pa.field("image", journal.BLOB)])


class EditStep(Step):
    """The step. Each editor has its own pool and queue; one with `when: failed` works on a job once all candidates of
    the earlier editors have failed."""

    name = "edit"
    table = EDIT
    wire = WIRE

    @property
    def stages(self) -> list[Stage]:
        specs, repair = self.recipe.edit.editors, Repairing.of(self.recipe)
        return [
            EditStage(editor, self.run.root, specs[name].pool, f"edit:{name}", repair)
            for name, editor in self.recipe.editors.items()
        ]

    def identity(self) -> dict[str, Any]:
        editors = {f"editor {name}": editor.identity() for name, editor in self.recipe.editors.items()}
        stored = {"jpeg_quality": self.recipe.edit.jpeg_quality, **Repairing.of(self.recipe).options}
        return super().identity() | {"edited": stored, **editors}

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(row["source_key"]):
            subject.candidates.setdefault(row["job_key"], {})[row["key"]] = Candidate.of(row)
            wave.owners[row["key"]] = (subject.key, row["job_key"])

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        for job, request in subject.jobs().items():
            candidates = subject.candidates.get(job, {})
            before: list[str] = []
            shares = wave.shares.get(request.category)
            chosen = None if shares is None else editor_of(job, shares)
            for name, spec in self.recipe.edit.editors.items():
                if spec.when == "always" and chosen not in (None, name):
                    continue
                if spec.when == "failed" and not self._failed(candidates, before):
                    break
                keys = [candidate_key(job, name, self._options[name], seed) for seed in range(spec.seeds)]
                for seed, key in enumerate(keys):
                    if wave.lacks(candidates.get(key)):
                        yield {
                            **request.row(),
                            "key": key,
                            "editor": name,
                            "editor_version": self.recipe.editors[name].version,
                            "options": canonical_json(self._options[name]["options"]),
                            "seed": seed,
                            "image": subject.photographs[0].image,
                        }
                before += keys

    def route(self, row: Row) -> tuple[str, ...]:
        return (f"edit:{row['editor']}",)

    @cached_property
    def _options(self) -> dict[str, dict[str, Any]]:
        repair = Repairing.of(self.recipe).options
        return {name: {**editor.identity(), **repair} for name, editor in self.recipe.editors.items()}

    def _failed(self, candidates: dict[str, Candidate], keys: Sequence[str]) -> bool:
        """Whether all these candidates exist, and none passes or may still pass."""
        outcomes = {of_candidate(self.recipe, candidates[key])[0] if key in candidates else None for key in keys}
        return outcomes <= {REJECTED, ERROR}


@dataclass
class EditStage(PartStage):
    """Makes the candidates of one editor."""

    part: Editor
    name: str
    repair: Repairing

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        sources = [_photograph(self.root, tuple(row["image"].items())) for row in rows]
        began = time.perf_counter()
        edits = self.part.edit(sources, [_job(row) for row in rows], [seed_of(row["key"], "edit") for row in rows])
        seconds = (time.perf_counter() - began) / len(rows)
        taken = {"seconds": seconds, "gpu_seconds": seconds * gpus_of(self)}
        made = zip(rows, sources, edits, strict=True)
        return [self._made({**row, **taken}, source, edit) for row, source, edit in made]

    def _made(self, row: Row, photograph: Image, edit: Edit | Refusal | Exception) -> Row:
        if isinstance(edit, Exception):
            return failed(row, edit)
        if isinstance(edit, Refusal):
            return {**row, "refusal": edit.reason}
        return row | self.repair.stored(edit, photograph, row["category"])


@lru_cache(maxsize=4)
def _photograph(root: Path, ref: tuple[tuple[str, Any], ...]) -> Image:
    """A decoded photograph; cached, because jobs of one photograph follow each other."""
    image = images.decode_jpeg(journal.read_blob(root, dict(ref)))
    # Several jobs share it, so no editor may draw on it.
    image.flags.writeable = False
    return image


def _job(row: Row) -> Job:
    texts = {name: row[name] for name in ("source_key", "category", *WORDS)}
    return Job(**{**texts, "plan": json.loads(row["plan"])})
