"""edit: every job becomes one candidate per editor and seed: its images and true mask, a refusal, or an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit import images
from crispedit.parts import Editor
from crispedit.recipe import Pool
from crispedit.record import Edit, Image, Job, Refusal, candidate_key, canonical_json, seed_of
from pipelines import tables
from pipelines.engine import Row, Stage, Work
from pipelines.run import EDIT, Run
from pipelines.steps import imported
from pipelines.steps.select import kept_sources
from shards import journal

WIRE = pa.schema(
    [
        *EDIT.schema,
        pa.field("instruction", pa.string()),
        pa.field("source_caption", pa.string()),
        pa.field("target_caption", pa.string()),
        pa.field("plan", pa.string()),
        pa.field("image", journal.BLOB),
    ]
)


def work(run: Run) -> Work:
    """The candidates that have no row yet, of jobs on kept photographs, photograph by photograph."""
    if run.recipe.imports_pairs:
        return imported.candidates(run)
    folder = run.folder("edit")
    known = set(journal.read(folder, EDIT, ["key"]).column("key").to_pylist())
    photographs = {row["key"]: row["image"] for row in kept_sources(run, ["key", "image"]).to_pylist()}
    plan = {}
    for job in jobs(run):
        image = photographs.get(job["source_key"])
        if image is None:
            continue
        for name, editor in run.recipe.editors.items():
            options = editor.identity()
            for seed in range(run.recipe.edit.editors[name].seeds):
                key = candidate_key(job["job_key"], name, options, seed)
                row = {**job, "key": key, "image": image, "editor": name, "seed": seed}
                row |= {"editor_version": editor.version, "options": canonical_json(options["options"])}
                if key not in known:
                    plan[key] = row
    rows = sorted(plan.values(), key=lambda row: (row["source_key"], row["key"]))
    return Work("edit", folder, EDIT, rows, stages(run), WIRE, lambda row: [row], len(rows))


def stages(run: Run) -> list[Stage]:
    """A pool for each editor."""
    if run.recipe.imports_pairs:
        return imported.candidate_stages(run)
    recipe = run.recipe
    return [
        Editing(
            name,
            editor,
            run.folder("curate"),
            recipe.edit.jpeg_quality,
            recipe.edit.editors[name].pool,
            editor.gpus,
        )
        for name, editor in recipe.editors.items()
    ]


def jobs(run: Run) -> list[Row]:
    """The jobs that annotate made, each once, in key order."""
    made = tables.connect(run).sql("""
        SELECT job_key, source_key, category, instruction, source_caption, target_caption, plan
        FROM job ORDER BY job_key
    """)
    return made.to_arrow_table().to_pylist()


@dataclass
class Editing:
    """Runs one editor over its own candidates; those of other editors pass through."""

    name: str
    editor: Editor
    photographs: Path
    jpeg_quality: int
    pool: Pool
    gpus: float = 0.0

    def load(self) -> None:
        self.editor.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        own = [row for row in rows if row["editor"] == self.name]
        edits = self.editor.edit(
            [_photograph(self.photographs, tuple(row["image"].items())) for row in own],
            [_job(row) for row in own],
            [seed_of(row["key"], "edit") for row in own],
        )
        done = {row["key"]: {**row, **self._columns(edit)} for row, edit in zip(own, edits, strict=True)}
        return [done.get(row["key"], row) for row in rows]

    def _columns(self, edit: Edit | Refusal) -> Row:
        if isinstance(edit, Refusal):
            return {"refusal": edit.reason}
        height, width = edit.edited.shape[:2]
        return {
            "width": width,
            "height": height,
            "edited": images.encode_jpeg(edit.edited, self.jpeg_quality),
            "mask": None if edit.mask is None else images.encode_mask(edit.mask),
            "source": None if edit.source is None else images.encode_jpeg(edit.source, self.jpeg_quality),
        }


@lru_cache(maxsize=4)
def _photograph(folder: Path, ref: tuple[tuple[str, Any], ...]) -> Image:
    """Jobs of one photograph come one after another: decode it once."""
    image = images.decode_jpeg(journal.read_blob(folder, dict(ref)))
    image.flags.writeable = (
        False  # shared by several jobs: an editor that drew on it would change its neighbours
    )
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
