"""edit: makes a candidate per job, editor and seed: its images and true mask, a refusal, or an error."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit import images
from crispedit.outcome import ERROR, REJECTED, describe, is_transient
from crispedit.parts import Editor
from crispedit.pipelines.building.repairing import NO_REPAIR, Repairing
from crispedit.pipelines.building.routing import editor_of
from crispedit.pipelines.building.verdicts import of_candidate
from crispedit.pipelines.records import EDIT, Candidate, Request
from crispedit.pipelines.run import Identity
from crispedit.pipelines.scheduling.flow import Row, Stage, gpus_of
from crispedit.pipelines.steps.curate import photographs
from crispedit.pipelines.steps.step import ActiveWave, Step, Subject, Todo
from crispedit.recipe import Pool
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
        edit, repair = self.recipe.edit, Repairing.of(self.recipe)
        return [
            EditStage(
                stage_of(name), editor, self.run.root, edit.jpeg_quality, edit.editors[name].pool, editor.gpus, repair
            )
            for name, editor in self.recipe.editors.items()
        ]

    def identity(self) -> Identity:
        editors = {f"editor {name}": editor.identity() for name, editor in self.recipe.editors.items()}
        repair = Repairing.of(self.recipe).options
        stored = {"jpeg_quality": self.recipe.edit.jpeg_quality, **repair}
        return {"photographs": photographs(self.run), "edited": stored, **editors}

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(row["source_key"]):
            subject.candidates.setdefault(row["job_key"], {})[row["key"]] = Candidate.of(row)
            wave.owners[row["key"]] = (subject.key, row["job_key"])

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Todo]:
        for job, request in subject.jobs().items():
            candidates = subject.candidates.get(job, {})
            before: list[str] = []
            shares = wave.shares.get(request.category)
            chosen = None if shares is None else editor_of(job, shares)
            for name, spec in self.recipe.edit.editors.items():
                if spec.when == "always" and chosen not in (None, name):
                    continue
                keys = [self._key(job, name, seed) for seed in range(spec.seeds)]
                if spec.when == "failed" and not self._failed(candidates, before):
                    break
                for seed, key in enumerate(keys):
                    if key not in candidates or wave.again(candidates[key]):
                        yield Todo((stage_of(name),), self._row(subject, request, name, seed, key))
                before += keys

    def _key(self, job: str, name: str, seed: int) -> str:
        return candidate_key(job, name, self._options[name], seed)

    @cached_property
    def _options(self) -> dict[str, dict[str, Any]]:
        repair = Repairing.of(self.recipe).options
        return {name: {**editor.identity(), **repair} for name, editor in self.recipe.editors.items()}

    def _failed(self, candidates: dict[str, Candidate], keys: Sequence[str]) -> bool:
        """Whether all these candidates exist, and none passes or may still pass."""
        outcomes = {of_candidate(self.recipe, candidates[key])[0] if key in candidates else None for key in keys}
        return outcomes <= {REJECTED, ERROR}

    def _row(self, subject: Subject, request: Request, name: str, seed: int, key: str) -> Row:
        return {
            "key": key,
            "job_key": request.job_key,
            "source_key": subject.key,
            "category": request.category,
            "editor": name,
            "editor_version": self.recipe.editors[name].version,
            "options": canonical_json(self._options[name]["options"]),
            "seed": seed,
            **{word: getattr(request, word) for word in WORDS},
            "image": subject.photographs[0].image,
        }


def stage_of(editor: str) -> str:
    return f"edit:{editor}"


@dataclass
class EditStage:
    name: str
    editor: Editor
    root: Path
    jpeg_quality: int
    pool: Pool
    gpus: float = 0.0
    repair: Repairing = NO_REPAIR

    def load(self) -> None:
        self.editor.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        sources = [_photograph(self.root, tuple(row["image"].items())) for row in rows]
        began = time.perf_counter()
        edits = self.editor.edit(sources, [_job(row) for row in rows], [seed_of(row["key"], "edit") for row in rows])
        seconds = (time.perf_counter() - began) / len(rows)
        taken = {"seconds": seconds, "gpu_seconds": seconds * gpus_of(self)}
        return [
            {**row, **taken, **self._columns(source, edit, row["category"])}
            for row, source, edit in zip(rows, sources, edits, strict=True)
        ]

    def _columns(self, photograph: Image, edit: Edit | Refusal | Exception, category: str) -> Row:
        if isinstance(edit, Exception):
            return {"error": describe(edit), "transient": is_transient(edit)}
        if isinstance(edit, Refusal):
            return {"refusal": edit.reason}
        edited, mask, source, columns = edit.edited, edit.mask, edit.source, {}
        if self.repair:
            repaired = self.repair(photograph if source is None else source, edited, mask, category)
            edited, mask, columns = repaired.edited, repaired.mask, dict(repaired.columns)
            source = source if repaired.source is None else repaired.source
        height, width = edited.shape[:2]
        return {
            **columns,
            "width": width,
            "height": height,
            "cost": edit.cost,
            "edited": images.encode_jpeg(edited, self.jpeg_quality),
            "mask": None if mask is None else images.encode_mask(mask),
            "source": None if source is None else images.encode_jpeg(source, self.jpeg_quality),
        }


@lru_cache(maxsize=4)
def _photograph(root: Path, ref: tuple[tuple[str, Any], ...]) -> Image:
    """A decoded photograph; cached, because jobs of one photograph follow each other."""
    image = images.decode_jpeg(journal.read_blob(root, dict(ref)))
    # Several jobs share it, so no editor may draw on it.
    image.flags.writeable = False
    return image


def _job(row: Row) -> Job:
    return Job(
        source_key=row["source_key"],
        category=row["category"],
        instruction=row["instruction"],
        source_caption=row["source_caption"],
        target_caption=row["target_caption"],
        plan=json.loads(row["plan"]),
    )
