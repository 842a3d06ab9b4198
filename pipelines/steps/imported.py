"""imported: imports existing pairs in place of annotate and edit. Their texts become jobs, and their edited images
candidates, which are then measured, selected, packed and audited like any others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from crispedit import images, weights
from crispedit.category import Category, load_categories, resolve
from crispedit.classifier import UNKNOWN, classify, needs_second_image
from crispedit.normalise import Refused, normalise
from crispedit.outcome import describe, is_transient
from crispedit.pipelines.building.repairing import NO_REPAIR, Repairing
from crispedit.pipelines.records import ANNOTATE, EDIT, Candidate, Photograph, Request
from crispedit.pipelines.run import Identity
from crispedit.pipelines.scheduling.flow import Row, Stage
from crispedit.pipelines.sources import pairs
from crispedit.pipelines.sources.pairs import ImportedPair, PairsSource
from crispedit.pipelines.steps.curate import photographs
from crispedit.pipelines.steps.step import ActiveWave, Step, Subject, Todo
from crispedit.recipe import Pool
from crispedit.record import candidate_key, canonical_json, content_key, job_key
from crispedit.repair import resampled_mask
from crispedit.shards import journal

EDITOR = "imported"
"""The editor's name of imported candidates."""
WITHOUT_ALIAS = "category_without_alias"
"""The key in a job's plan for the dataset's category word, if it is no category's alias."""

EDIT_WIRE = pa.schema([*EDIT.schema, ("pair", pa.string()), ("scale", pa.float64()), pa.field("image", journal.BLOB)])


class ImportedJobsStep(Step):
    """annotate for pairs: their texts become jobs."""

    name = "annotate"
    table = ANNOTATE
    wire = ANNOTATE.schema

    @property
    def stages(self) -> list[Stage]:
        return [CategoryStage(self.recipe.annotate.pool, self._best_of_n, own_categories=self.recipe.own_categories)]

    @property
    def _best_of_n(self) -> bool:
        source = self.recipe.source
        return isinstance(source, PairsSource) and source.best_of_n

    def identity(self) -> Identity:
        return {
            "photographs": photographs(self.run),
            "annotator": EDITOR,
            "classifier": weights.fingerprint("classifier"),
            "best_of_n": self._best_of_n,
        }

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(row["source_key"]):
            subject.requests[row["key"]] = Request.of(row)

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Todo]:
        for photograph in subject.photographs:
            pair = pair_of(wave, photograph)
            there = subject.requests.get(request_key(pair))
            if there is None or wave.again(there):
                words = ("category", "instruction", "source_caption", "target_caption")
                row = {word: getattr(pair, word) for word in words}
                yield Todo(("words",), {**row, "key": request_key(pair), "source_key": subject.key, "ordinal": 0})


class ImportedImagesStep(Step):
    """edit for pairs: their edited images become candidates."""

    name = "edit"
    table = EDIT
    wire = EDIT_WIRE

    @property
    def stages(self) -> list[Stage]:
        """One pool that reads, normalises and, with `edit.repair`, aligns the edited images."""
        recipe = self.recipe
        return [
            ImagePairStage(
                recipe.curate.max_pixels,
                recipe.edit.jpeg_quality,
                recipe.curate.pool,
                str(self.run.root),
                Repairing.of(recipe),
            )
        ]

    def identity(self) -> Identity:
        stored = self.recipe.edit.model_dump(mode="json", include={"jpeg_quality", "repair"})
        stored |= Repairing.of(self.recipe).options
        return {"photographs": photographs(self.run), "edited": stored}

    def load(self, wave: ActiveWave, row: Row) -> None:
        if subject := wave.subjects.get(row["source_key"]):
            subject.candidates.setdefault(row["job_key"], {})[row["key"]] = Candidate.of(row)
            wave.owners[row["key"]] = (subject.key, row["job_key"])

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Todo]:
        repair = Repairing.of(self.recipe).options
        for photograph in subject.photographs:
            pair = pair_of(wave, photograph)
            request = subject.requests.get(request_key(pair))
            if request is None or request.job_key is None:
                continue
            options = {"uri": pair.uri, **({} if pair.id is None else {"id": pair.id}), **repair}
            key = candidate_key(request.job_key, EDITOR, options, 0)
            there = subject.candidates.get(request.job_key, {}).get(key)
            if there is None or wave.again(there):
                assert photograph.width is not None, f"{pair.uri} has no size"
                assert photograph.original_width is not None, f"{pair.uri} has no size"
                yield Todo(
                    (EDITOR,),
                    {
                        "key": key,
                        "job_key": request.job_key,
                        "category": request.category,
                        "source_key": subject.key,
                        "editor": EDITOR,
                        "editor_version": 1,
                        "options": canonical_json(options),
                        "seed": 0,
                        "pair": json.dumps(pair.to_row()),
                        "scale": photograph.width / photograph.original_width,
                        "image": photograph.image,
                    },
                )


def request_key(pair: ImportedPair) -> str:
    return content_key("pair", pair.uri)


def pair_of(wave: ActiveWave, photograph: Photograph) -> ImportedPair:
    pair = wave.members[photograph.uri]
    assert isinstance(pair, ImportedPair), f"{photograph.uri} is no pair"
    return pair


@dataclass
class CategoryStage:
    """Makes jobs from texts: the category comes from the dataset's word for it, else from the instruction."""

    pool: Pool
    best_of_n: bool = False
    """Whether pairs with equal source, instruction and category are candidates of one job; else each has its own
    job."""
    name: str = "words"
    gpus: float = 0.0
    own_categories: tuple[Category, ...] = ()
    """The recipe's own categories, whose aliases count too."""
    categories: Mapping[str, Category] = field(default_factory=dict)

    def load(self) -> None:
        self.categories = load_categories() | {category.name: category for category in self.own_categories}

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        return [self._job(row) for row in rows]

    def _job(self, row: Row) -> Row:
        if not row["instruction"]:
            return {**row, "category": row["category"] or UNKNOWN, "refusal": "no_instruction"}
        if needs_second_image(row["instruction"]):
            return {**row, "category": row["category"] or UNKNOWN, "refusal": "needs_second_image"}
        plan = "{}"
        try:
            category = resolve(row["category"] or "", self.categories)
        except ValueError:
            category = classify(row["instruction"]).category
            if row["category"]:
                plan = canonical_json({WITHOUT_ALIAS: row["category"]})
        if category == UNKNOWN:
            return {**row, "category": UNKNOWN, "refusal": "unknown_category", "plan": plan}
        key = job_key(row["source_key"], row["instruction"], category)
        if not self.best_of_n:
            key = content_key("pair", key, row["key"])
        return {**row, "category": category, "job_key": key, "plan": plan}


@dataclass
class ImagePairStage:
    """Reads edited images and masks and stores them like the sources: upright sRGB JPEG, equally scaled.

    `repair` first aligns them or removes drift (building/repairing.py). The stored images are the ones that are
    measured, packed and fingerprinted.
    """

    max_pixels: int
    jpeg_quality: int
    pool: Pool
    root: str
    repair: Repairing = NO_REPAIR
    name: str = EDITOR
    gpus: float = 0.0

    def load(self) -> None:
        pass

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        images = pairs.read([ImportedPair.from_row(json.loads(row["pair"])) for row in rows], self.root)
        return [
            self._candidate({**row, "pair": None, "image": None}, row["image"], pair)
            for row, pair in zip(rows, images, strict=True)
        ]

    def _candidate(self, row: Row, source: Any, files: pairs.PairImages | Exception) -> Row:
        if isinstance(files, Exception):
            return {**row, "error": describe(files), "transient": is_transient(files)}
        try:
            edited: Any = normalise(files.edited, max_pixels=self.max_pixels, max_short_side_px=None).image
        except Refused as refused:
            return {**row, "refusal": refused.reason}
        except Exception as error:  # a decoder's error about one image is that row's error
            return {**row, "error": describe(error), "transient": is_transient(error)}
        if row["scale"] < 1:  # by the source's factor, so that a difference in size remains
            size = [max(1, round(side * row["scale"])) for side in edited.shape[1::-1]]
            edited = cv2.resize(edited, size, interpolation=cv2.INTER_AREA)
        mask = None if files.mask is None else images.decode_mask(files.mask)
        if self.repair:
            onto = images.decode_jpeg(journal.read_blob(Path(self.root), source))
            repaired = self.repair(onto, edited, mask, row["category"])
            edited, mask = repaired.edited, repaired.mask
            row |= repaired.columns
            if repaired.source is not None:
                row["source"] = images.encode_jpeg(repaired.source, self.jpeg_quality)
        height, width = edited.shape[:2]
        row |= {"width": width, "height": height, "edited": images.encode_jpeg(edited, self.jpeg_quality)}
        if mask is not None:
            row["mask"] = images.encode_mask(resampled_mask(mask, edited))
        return row
