"""curate: every input file becomes a row: its normalised image and measurements, a refusal, or an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crispedit import images
from crispedit.cascade import Cascade
from crispedit.normalise import Refused, normalise
from crispedit.outcome import describe, is_away, is_transient
from crispedit.parts import Filter
from crispedit.pipelines import sources
from crispedit.pipelines.recipe import CurateSpec
from crispedit.pipelines.records import Photograph, curate_table
from crispedit.pipelines.run import Identity, Run
from crispedit.pipelines.scheduling.flow import Row, Stage
from crispedit.pipelines.sources.pairs import ImportedPair
from crispedit.pipelines.steps.step import ActiveWave, Member, Step, Subject, Todo
from crispedit.recipe import Pool
from crispedit.record import Sample, source_key

AWAY = "away"
"""Marks a processed row whose file is missing, so that this run does not retry it."""


class CurateStep(Step):
    """The step. Its rows are files, not subjects: photographs are judged once all of a wave are measured."""

    name = "curate"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.table = curate_table(self.recipe.source_cascade)
        self.wire = pa.schema([pa.field("entry", pa.string()), *self.table.schema])

    @property
    def stages(self) -> list[Stage]:
        """Normalisation, with the filters that share its pixels; then a pool for each filter with a GPU or a pool of
        its own."""
        options, cascade = self.recipe.curate, self.recipe.source_cascade
        apart = [name for name, f in cascade.filters.items() if options.filters[name].apart(f.gpus)]
        shared = [name for name in cascade.filters if name not in apart]
        return [
            NormaliseStage(options, cascade, shared, str(self.run.root), options.pool),
            *(
                MeasureStage(f"curate:{name}", cascade, name, options.filters[name].pool, cascade.filters[name].gpus)
                for name in apart
            ),
        ]

    def identity(self) -> Identity:
        return {"photographs": photographs(self.run), **filters(self.recipe.source_cascade.filters)}

    def load(self, wave: ActiveWave, row: Row) -> None:
        photograph = Photograph.of(row)
        for name in self.recipe.source_cascade.filters:
            if row[f"{name}.error"] is not None and photograph.error is None:
                photograph.error = row[f"{name}.error"]
                photograph.transient = not row[f"{name}.measured"]
        wave.photographs[row["uri"]] = photograph

    def files(self, wave: ActiveWave) -> Iterator[Todo]:
        """The files of a wave without a row, or with one to be made again."""
        names = tuple(stage.name for stage in self.stages)
        for uri, member in wave.members.items():
            row = wave.photographs.get(uri)
            if row is None or wave.again(row):
                yield Todo(names, _planned(uri, member))

    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Todo]:
        return iter(())

    def transient(self, row: Row) -> bool:
        if row.get(AWAY):
            return False
        return bool(row.get("transient")) or self.recipe.source_cascade.passes(row)


def _planned(uri: str, member: Member) -> Row:
    """The planned row of a file; of a pair, curate reads the source image."""
    entry = _source_of(member) if isinstance(member, ImportedPair) else member
    return {
        "uri": uri,
        "unit": entry.unit,
        "entry": json.dumps(entry.to_row()),
        "dataset": entry.dataset,
        "licence": entry.licence,
        "caption": entry.caption,
    }


def _source_of(pair: ImportedPair) -> sources.Entry:
    given: dict[str, Any] = {"dataset": pair.dataset, "licence": pair.licence, "caption": pair.source_caption}
    if pair.source is None or pair.error is not None:
        error = pair.error or f"{pair.uri}: there is no source image"
        return sources.Entry(pair.uri, "", error=error, **given)
    return sources.Entry.from_row(pair.source.to_row() | {"uri": pair.uri} | given)


def photographs(run: Run) -> dict[str, object]:
    """What determines the stored photographs; part of every step's identity."""
    curate = run.recipe.curate
    return {
        "source": run.recipe.source.model_dump(mode="json"),
        "max_short_side_px": curate.max_short_side_px,
        "jpeg_quality": curate.jpeg_quality,
    }


def filters(of: Mapping[str, Filter]) -> dict[str, object]:
    """The identities of filters, as parts of a step's identity."""
    return {f"filter {name}": one.identity() for name, one in of.items()}


@dataclass
class NormaliseStage:
    """Reads files, stores each as upright sRGB JPEG under the key of its original bytes, and measures it on the CPU."""

    options: CurateSpec
    cascade: Cascade
    own: Sequence[str]
    root: str
    """The run's directory, which holds the images split out of huge files."""
    pool: Pool
    name: str = "normalise"
    gpus: float = 0.0

    def load(self) -> None:
        _load(self.cascade, self.own)

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        read = sources.read([sources.Entry.from_row(json.loads(row["entry"])) for row in rows], self.root)
        done = [self._row(row, data) for row, data in zip(rows, read, strict=True)]
        _measure(self.cascade, self.own, done)
        return done

    def _row(self, row: Row, data: bytes | Exception) -> Row:
        if isinstance(data, Exception):
            return {**row, "error": describe(data), "transient": is_transient(data), AWAY: is_away(data)}
        row = {**row, "key": source_key(data), "sha256": hashlib.sha256(data).hexdigest()}
        try:
            photograph = normalise(
                data, max_pixels=self.options.max_pixels, max_short_side_px=self.options.max_short_side_px
            )
        except Refused as refused:
            return {**row, "refusal": refused.reason, "format": refused.format}
        except Exception as error:  # a decoder's error about one file is that row's error
            return {**row, "error": describe(error), "transient": is_transient(error)}
        height, width = photograph.image.shape[:2]
        return {
            **row,
            "format": photograph.format,
            "original_width": photograph.width,
            "original_height": photograph.height,
            "width": width,
            "height": height,
            "image": images.encode_jpeg(photograph.image, self.options.jpeg_quality),
        }


@dataclass
class MeasureStage:
    """Measures photographs with a filter that has its own actor pool."""

    name: str
    cascade: Cascade
    filter: str
    pool: Pool
    gpus: float = 0.0

    def load(self) -> None:
        _load(self.cascade, [self.filter])

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        done = [dict(row) for row in rows]
        _measure(self.cascade, [self.filter], done)
        return done


def _load(cascade: Cascade, own: Sequence[str]) -> None:
    for name in own:
        cascade.filters[name].load()


def _measure(cascade: Cascade, own: Sequence[str], rows: Sequence[Row]) -> None:
    """Measure every photograph with every filter, so that bounds can be moved later."""
    whole = [row for row in rows if row.get("image") is not None]
    samples = [
        Sample(
            key=row["key"],
            source_jpeg=row["image"],
            original_width=row["original_width"],
            original_height=row["original_height"],
        )
        for row in whole
    ]
    cascade.measure(samples, whole, own=own, everything=True)
