"""imported: existing pairs in place of annotate and edit. Their words become jobs, their edited images candidates;
from there on they are measured, selected, packed and audited like our own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from crispedit import images
from crispedit.cascade import describe
from crispedit.category import Category, load_categories, resolve
from crispedit.classifier import UNKNOWN, classify, needs_second_image
from crispedit.filters import alignment
from crispedit.normalise import Refused, normalise
from crispedit.pipelines import pairs, sources
from crispedit.pipelines.engine import Row, Stage, Work
from crispedit.pipelines.pairs import Pair, PairsSource
from crispedit.pipelines.run import ANNOTATE, EDIT, IN_PLACE, Run
from crispedit.pipelines.steps.select import kept_sources
from crispedit.recipe import Pool
from crispedit.record import candidate_key, canonical_json, content_key, job_key
from crispedit.shards import journal

EDITOR = "imported"
"""What an imported candidate says its editor is."""

EDIT_WIRE = pa.schema(
    [*EDIT.schema, ("pair", pa.string()), ("scale", pa.float64()), pa.field("image", journal.BLOB)]
)


def entries(source: PairsSource) -> list[sources.Entry]:
    """What curate reads of pairs: the source image of each, under the pair's uri."""
    return [_source_entry(pair) for pair in pairs.pairs(source)]


def _source_entry(pair: Pair) -> sources.Entry:
    given: dict[str, Any] = {"dataset": pair.dataset, "licence": pair.licence, "caption": pair.source_caption}
    if pair.source is None or pair.error is not None:
        return sources.Entry(
            pair.uri, "", error=pair.error or f"{pair.uri}: there is no source image", **given
        )
    row = pair.source.to_row() | {"uri": pair.uri} | given
    return sources.Entry.from_row(row)


def jobs(run: Run) -> Work:
    """The pairs on kept sources whose words have no row yet."""
    folder = run.folder("annotate")
    known = set(journal.read(folder, ANNOTATE, ["key"]).column("key").to_pylist())
    plan = [
        {
            "key": key,
            "source_key": source["key"],
            "ordinal": 0,
            "category": pair.category,
            "instruction": pair.instruction,
            "source_caption": pair.source_caption,
            "target_caption": pair.target_caption,
        }
        for pair, source in _on_kept_sources(run)
        if (key := request_key(pair)) not in known
    ]
    return Work(
        "annotate", folder, ANNOTATE, plan, job_stages(run), ANNOTATE.schema, lambda row: [row], len(plan)
    )


def job_stages(run: Run) -> list[Stage]:
    """One pool that names the categories."""
    source = run.recipe.source
    assert isinstance(source, PairsSource)
    return [Words(run.recipe.annotate.pool, source.best_of_n)]


def candidates(run: Run) -> Work:
    """The pairs with a job whose edited image has no row yet."""
    folder = run.folder("edit")
    known = set(journal.read(folder, EDIT, ["key"]).column("key").to_pylist())
    columns = ["key", "job_key", "category"]
    jobs_by_request = {
        row["key"]: row for row in journal.read(run.folder("annotate"), ANNOTATE, columns).to_pylist()
    }
    plan = []
    repair = run.recipe.edit.repair
    for pair, source in _on_kept_sources(run):
        job = jobs_by_request.get(request_key(pair))
        if job is None or job["job_key"] is None:
            continue
        options = (
            {"uri": pair.uri} | ({"id": pair.id} if pair.id else {}) | ({"repair": True} if repair else {})
        )
        key = candidate_key(job["job_key"], EDITOR, options, 0)
        if key not in known:
            plan.append(
                {
                    "key": key,
                    "job_key": job["job_key"],
                    "category": job["category"],
                    "source_key": source["key"],
                    "editor": EDITOR,
                    "editor_version": 1,
                    "options": canonical_json(options),
                    "seed": 0,
                    "pair": json.dumps(pair.to_row()),
                    "scale": source["width"] / source["original_width"],
                    "image": source["image"],
                }
            )
    return Work("edit", folder, EDIT, plan, candidate_stages(run), EDIT_WIRE, lambda row: [row], len(plan))


def candidate_stages(run: Run) -> list[Stage]:
    """One pool that reads and normalises the edited images, and lays them on their sources where that is asked."""
    recipe = run.recipe
    sources_folder = run.folder("curate") if recipe.edit.repair else None
    return [
        Candidates(recipe.curate.max_pixels, recipe.edit.jpeg_quality, recipe.curate.pool, sources_folder)
    ]


def request_key(pair: Pair) -> str:
    """The key of a pair's row in annotate."""
    return content_key("pair", pair.uri)


def _on_kept_sources(run: Run) -> Iterator[tuple[Pair, Row]]:
    columns = ["uri", "key", "width", "original_width", "image"]
    kept = {row["uri"]: row for row in kept_sources(run, columns).to_pylist()}
    source = run.recipe.source
    assert isinstance(source, PairsSource)
    return ((pair, kept[pair.uri]) for pair in pairs.pairs(source) if pair.uri in kept)


@dataclass
class Words:
    """Makes jobs of words: the category is what the dataset's name for it means, else what the instruction says."""

    pool: Pool
    best_of_n: bool = False
    """Pairs with equal source, words and category are candidates of one job; else each has a job of its own."""
    name: str = "words"
    gpus: float = 0.0
    categories: Mapping[str, Category] = field(default_factory=dict)

    def load(self) -> None:
        self.categories = load_categories()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        return [self._job(row) for row in rows]

    def _job(self, row: Row) -> Row:
        if not row["instruction"]:
            return {**row, "category": row["category"] or UNKNOWN, "refusal": "no_instruction"}
        if needs_second_image(row["instruction"]):
            return {**row, "category": row["category"] or UNKNOWN, "refusal": "needs_second_image"}
        try:
            category = resolve(row["category"] or "", self.categories)
        except ValueError:
            category = classify(row["instruction"]).category
        if category == UNKNOWN:
            return {**row, "category": UNKNOWN, "refusal": "unknown_category"}
        key = job_key(row["source_key"], row["instruction"], category)
        if not self.best_of_n:
            key = content_key("pair", key, row["key"])
        return {**row, "category": category, "job_key": key, "plan": "{}"}


@dataclass
class Candidates:
    """Reads edited images and masks and stores them as curate stored the sources: upright sRGB JPEG, scaled alike.

    With `repair_onto`, the folder of the stored sources, an edited image that a near-similarity moves off its source
    is laid back onto it (`filters.alignment.repair`), and `transform` says by which affine map of source to edited
    pixels. This is the place for it: what is stored here is what is measured, packed and fingerprinted.
    """

    max_pixels: int
    jpeg_quality: int
    pool: Pool
    repair_onto: Path | None = None
    name: str = EDITOR
    gpus: float = 0.0

    def load(self) -> None:
        pass

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        found = pairs.read([Pair.from_row(json.loads(row["pair"])) for row in rows])
        return [
            self._candidate({**row, "pair": None, "image": None}, row["image"], pair)
            for row, pair in zip(rows, found, strict=True)
        ]

    def _candidate(self, row: Row, source: Any, found: pairs.PairImages | Exception) -> Row:
        if isinstance(found, Exception):
            return {**row, "error": describe(found)}
        try:
            edited: Any = normalise(found.edited, max_pixels=self.max_pixels, max_short_side_px=None).image
        except Refused as refused:
            return {**row, "refusal": refused.reason}
        except Exception as error:  # a decoder's complaint about one image is that pair's row
            return {**row, "error": describe(error)}
        if row["scale"] < 1:  # by the source's own factor: a pair whose sizes differ keeps its difference
            size = [max(1, round(side * row["scale"])) for side in edited.shape[1::-1]]
            edited = cv2.resize(edited, size, interpolation=cv2.INTER_AREA)
        if self.repair_onto is not None:
            onto = images.decode_jpeg(journal.read_blob(self.repair_onto, source))
            laid = alignment.repair(onto, edited)
            row["transform"] = IN_PLACE
            if laid is not None:
                edited, transform = laid
                row["transform"] = json.dumps([[round(value, 6) for value in line] for line in transform])
        height, width = edited.shape[:2]
        row |= {"width": width, "height": height, "edited": images.encode_jpeg(edited, self.jpeg_quality)}
        if found.mask is not None:
            mask = images.decode_mask(found.mask)
            if mask.shape != (height, width):
                mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
            row["mask"] = images.encode_mask(mask)
        return row
