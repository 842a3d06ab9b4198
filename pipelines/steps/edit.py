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
from crispedit.cascade import KEPT, NOT_REACHED
from crispedit.parts import Editor
from crispedit.pipelines import tables
from crispedit.pipelines.engine import Row, Stage, Work
from crispedit.pipelines.run import EDIT, Run
from crispedit.pipelines.steps import imported
from crispedit.pipelines.steps.select import first_pass, kept_sources
from crispedit.recipe import Pool
from crispedit.record import Edit, Image, Job, Refusal, candidate_key, canonical_json, seed_of
from crispedit.shards import journal

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
    """The candidates that have no row yet, of jobs on kept photographs, photograph by photograph; those of an editor
    for failed jobs as far as these are known by now."""
    if run.recipe.imports_pairs:
        return imported.candidates(run)
    folder = run.folder("edit")
    known = set(journal.read(folder, EDIT, ["key"]).column("key").to_pylist())
    photographs = {row["key"]: row["image"] for row in kept_sources(run, ["key", "image"]).to_pylist()}
    wanted = [job for job in jobs(run) if job["source_key"] in photographs]
    plan = {}
    for name, editor in run.recipe.editors.items():
        options, spec = editor.identity(), run.recipe.edit.editors[name]
        its = {
            "editor": name,
            "editor_version": editor.version,
            "options": canonical_json(options["options"]),
        }
        failed = _failed(run, name) if spec.when == "failed" else None
        for job in wanted:
            if failed is not None and job["job_key"] not in failed:
                continue
            for seed in range(spec.seeds):
                key = candidate_key(job["job_key"], name, options, seed)
                if key not in known:
                    image = photographs[job["source_key"]]
                    plan[key] = {**job, **its, "key": key, "image": image, "seed": seed}
    rows = sorted(plan.values(), key=lambda row: (row["source_key"], row["key"]))
    busy = {row["editor"] for row in rows}
    pools: list[Stage] = [_pool(run, name) for name in run.recipe.editors if name in busy]
    return Work("edit", folder, EDIT, rows, pools, WIRE, lambda row: [row], len(rows))


def stages(run: Run) -> list[Stage]:
    """A pool for each editor that works at once: those for failed jobs come after."""
    if run.recipe.imports_pairs:
        return imported.candidate_stages(run)
    return [_pool(run, name) for name, spec in run.recipe.edit.editors.items() if spec.when == "always"]


def later_stages(run: Run) -> list[Stage]:
    """A pool for each editor for failed jobs, in order: each has a pass of edit and score to itself."""
    if run.recipe.imports_pairs:
        return []
    return [_pool(run, name) for name, spec in run.recipe.edit.editors.items() if spec.when == "failed"]


def _pool(run: Run, name: str) -> Editing:
    edit, editor = run.recipe.edit, run.recipe.editors[name]
    return Editing(
        name, editor, run.folder("curate"), edit.jpeg_quality, edit.editors[name].pool, editor.gpus
    )


def _failed(run: Run, name: str) -> set[str]:
    """The jobs of which every candidate by the editors before this one has a verdict, and none is kept."""
    specs = run.recipe.edit.editors
    before = list(specs)[: list(specs).index(name)]
    whole = sum(specs[editor].seeds for editor in before)
    db = tables.connect(run)
    first_pass(run, db)
    return {
        key
        for (key,) in db.execute(
            "SELECT job_key FROM verdicts WHERE list_contains(?, editor) GROUP BY job_key HAVING count(*) = ? "
            "AND count(*) FILTER (verdict = ? OR verdict LIKE ?) = 0",
            [before, whole, KEPT, f"{NOT_REACHED}%"],
        ).fetchall()
    }


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
