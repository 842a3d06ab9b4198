"""imported: imports existing pairs in place of annotate and edit. Their texts become jobs, and their edited images
candidates, which are then measured, selected, packed and audited like any others."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from crispedit import images, weights
from crispedit.category import Category, load_categories, resolve
from crispedit.classifier import UNKNOWN, classify, needs_second_image
from crispedit.normalise import Refused, normalise
from crispedit.pipelines.building.repairing import Repairing
from crispedit.pipelines.records import ANNOTATE, EDIT, Photograph
from crispedit.pipelines.scheduling.flow import Row, Stage, failed
from crispedit.pipelines.sources import pairs
from crispedit.pipelines.sources.pairs import ImportedPair
from crispedit.pipelines.steps.annotate import AnnotateStep
from crispedit.pipelines.steps.edit import EditStep
from crispedit.pipelines.steps.step import ActiveWave, Step, Subject
from crispedit.recipe import Pool
from crispedit.record import Edit, candidate_key, canonical_json, content_key, job_key
from crispedit.shards import journal

EDITOR = "imported"
"""The editor's name of imported candidates."""
WITHOUT_ALIAS = "category_without_alias"
"""The key in a job's plan for the dataset's category word, if it is no category's alias."""

EDIT_WIRE = pa.schema([*EDIT.schema, ("pair", pa.string()), ("scale", pa.float64()), pa.field("image", journal.BLOB)])


class ImportedJobsStep(AnnotateStep):
    """annotate for pairs: their texts become jobs."""

    wire = ANNOTATE.schema
    explode = staticmethod(Step.explode)

    @property
    def stages(self) -> list[Stage]:
        return [CategoryStage(self.recipe.annotate.pool, self._best_of_n, self.recipe.own_categories)]

    @property
    def _best_of_n(self) -> bool:
        return bool(getattr(self.recipe.source, "best_of_n", False))

    def identity(self) -> dict[str, Any]:
        made_by = {"annotator": EDITOR, "classifier": weights.fingerprint("classifier"), "best_of_n": self._best_of_n}
        return Step.identity(self) | made_by

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        for photograph in subject.photographs:
            pair = pair_of(wave, photograph)
            if wave.lacks(subject.requests.get(request_key(pair))):
                words = ("category", "instruction", "source_caption", "target_caption")
                row = {word: getattr(pair, word) for word in words}
                yield {**row, "key": request_key(pair), "source_key": subject.key, "ordinal": 0}


class ImportedImagesStep(EditStep):
    """edit for pairs: their edited images become candidates."""

    wire = EDIT_WIRE

    @property
    def stages(self) -> list[Stage]:
        """One pool that reads, normalises and, with `edit.repair`, aligns the edited images."""
        curate = self.recipe.curate
        return [ImagePairStage(curate.max_pixels, curate.pool, str(self.run.root), Repairing.of(self.recipe))]

    def identity(self) -> dict[str, Any]:
        stored = self.recipe.edit.model_dump(mode="json", include={"jpeg_quality", "repair"})
        return Step.identity(self) | {"edited": stored | Repairing.of(self.recipe).options}

    def route(self, row: Row) -> tuple[str, ...]:
        return (EDITOR,)

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Row]:
        repair = Repairing.of(self.recipe).options
        for photograph in subject.photographs:
            pair = pair_of(wave, photograph)
            request = subject.requests.get(request_key(pair))
            if request is None or request.job_key is None:
                continue
            options = {"uri": pair.uri, **({} if pair.id is None else {"id": pair.id}), **repair}
            key = candidate_key(request.job_key, EDITOR, options, 0)
            if wave.lacks(subject.candidates.get(request.job_key, {}).get(key)):
                assert photograph.width is not None, f"{pair.uri} has no size"
                assert photograph.original_width is not None, f"{pair.uri} has no size"
                yield {
                    **request.row(),
                    "key": key,
                    "editor": EDITOR,
                    "editor_version": 1,
                    "options": canonical_json(options),
                    "seed": 0,
                    "pair": json.dumps(pair.to_row()),
                    "scale": photograph.width / photograph.original_width,
                    "image": photograph.image,
                }


def request_key(pair: ImportedPair) -> str:
    return content_key("pair", pair.uri)


def pair_of(wave: ActiveWave, photograph: Photograph) -> ImportedPair:
    pair = wave.members[photograph.uri]
    assert isinstance(pair, ImportedPair), f"{photograph.uri} is no pair"
    return pair


@dataclass
class CategoryStage(Stage):
    """Makes jobs from texts: the category comes from the dataset's word for it, else from the instruction."""

    name = "words"
    pool: Pool
    best_of_n: bool = False
    """Whether pairs with equal source, instruction and category are candidates of one job; else each has its own
    job."""
    own_categories: tuple[Category, ...] = ()
    """The recipe's own categories, whose aliases count too."""

    def load(self) -> None:
        self.categories = load_categories() | {category.name: category for category in self.own_categories}

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        return [self._job(row) for row in rows]

    def _job(self, row: Row) -> Row:
        word, instruction = row["category"] or "", row["instruction"]
        if not instruction or needs_second_image(instruction):
            reason = "needs_second_image" if instruction else "no_instruction"
            return {**row, "category": word or UNKNOWN, "refusal": reason}
        plan = "{}"
        try:
            category = resolve(word, self.categories)
        except ValueError:
            category = classify(instruction).category
            if word:
                plan = canonical_json({WITHOUT_ALIAS: word})
        if category == UNKNOWN:
            return {**row, "category": UNKNOWN, "refusal": "unknown_category", "plan": plan}
        key = job_key(row["source_key"], instruction, category)
        if not self.best_of_n:
            key = content_key("pair", key, row["key"])
        return {**row, "category": category, "job_key": key, "plan": plan}


@dataclass
class ImagePairStage(Stage):
    """Reads edited images and masks, repairs them if the recipe says so, and stores them like the sources: upright sRGB
    JPEG, equally scaled. The stored images are the ones that are measured, packed and fingerprinted."""

    name = EDITOR
    max_pixels: int
    pool: Pool
    root: str
    repair: Repairing

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        files = pairs.read([ImportedPair.from_row(json.loads(row["pair"])) for row in rows], self.root)
        return [self._candidate(row, pair) for row, pair in zip(rows, files, strict=True)]

    def _candidate(self, row: Row, files: pairs.PairImages | Exception) -> Row:
        done = {**row, "pair": None, "image": None}
        if isinstance(files, Exception):
            return failed(done, files)
        try:
            edited: Any = normalise(files.edited, max_pixels=self.max_pixels, max_short_side_px=None).image
        except Refused as refused:
            return {**done, "refusal": refused.reason}
        except Exception as error:  # a decoder's error about one image is that row's error
            return failed(done, error)
        if row["scale"] < 1:  # by the source's factor, so that a difference in size remains
            size = [max(1, round(side * row["scale"])) for side in edited.shape[1::-1]]
            edited = cv2.resize(edited, size, interpolation=cv2.INTER_AREA)
        mask = None if files.mask is None else images.decode_mask(files.mask)
        source = edited  # read only for a repair
        if self.repair.options:
            source = images.decode_jpeg(journal.read_blob(Path(self.root), row["image"]))
        return done | self.repair.stored(Edit(edited, mask), source, row["category"])
