"""curate: every input file becomes a row: its normalised image and measurements, a refusal, or an error."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from crispedit import images
from crispedit.normalise import Refused, normalise
from crispedit.outcome import is_away
from crispedit.pipelines import sources
from crispedit.pipelines.recipe import CurateSpec
from crispedit.pipelines.records import Photograph, curate_table
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Row, Stage, failed
from crispedit.pipelines.sources.pairs import ImportedPair
from crispedit.pipelines.steps.step import ActiveWave, MeasureStage, Step, filters
from crispedit.record import source_key

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
        apart = {name: f.gpus for name, f in cascade.filters.items() if options.filters[name].apart(f.gpus)}
        shared = [name for name in cascade.filters if name not in apart]
        pools = {name: options.filters[name].pool for name in apart}
        return [
            NormaliseStage(cascade, shared, options.pool, options=options, root=str(self.run.root)),
            *(MeasureStage(cascade, [name], pools[name], gpus, f"curate:{name}") for name, gpus in apart.items()),
        ]

    def identity(self) -> dict[str, Any]:
        return super().identity() | filters(self.recipe.source_cascade.filters)

    def load(self, wave: ActiveWave, row: Row) -> None:
        photograph = Photograph.of(row)
        for name in self.recipe.source_cascade.filters:
            if row[f"{name}.error"] is not None and photograph.error is None:
                photograph.error = row[f"{name}.error"]
                photograph.transient = not row[f"{name}.measured"]
        wave.photographs[row["uri"]] = photograph

    def files(self, wave: ActiveWave) -> Iterator[Row]:
        """The files of a wave without a row, or with one to be made again."""
        for uri, member in wave.members.items():
            if wave.lacks(wave.photographs.get(uri)):
                entry = _source_of(member) if isinstance(member, ImportedPair) else member
                about = {name: getattr(entry, name) for name in ("unit", "dataset", "licence", "caption")}
                yield {"uri": uri, "entry": json.dumps(entry.to_row()), **about}

    def transient(self, row: Row) -> bool:
        return not row.get(AWAY) and (bool(row.get("transient")) or self.recipe.source_cascade.has_transient_error(row))


def _source_of(pair: ImportedPair) -> sources.Entry:
    """The entry of a pair's source image, which curate reads."""
    given: dict[str, Any] = {"dataset": pair.dataset, "licence": pair.licence, "caption": pair.source_caption}
    if pair.source is None or pair.error is not None:
        error = pair.error or f"{pair.uri}: there is no source image"
        return sources.Entry(pair.uri, "", error=error, **given)
    return replace(pair.source, uri=pair.uri, **given)


@dataclass
class NormaliseStage(MeasureStage):
    """Reads files, stores each as upright sRGB JPEG under the key of its original bytes, and measures it on the CPU."""

    name: str = "normalise"
    options: CurateSpec = field(kw_only=True)
    root: str = field(kw_only=True)
    """The run's directory, which holds the images split out of huge files."""

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        read = sources.read([sources.Entry.from_row(json.loads(row["entry"])) for row in rows], self.root)
        done = [self._row(row, data) for row, data in zip(rows, read, strict=True)]
        self.measure(done)
        return done

    def _row(self, row: Row, data: bytes | Exception) -> Row:
        if isinstance(data, Exception):
            return failed(row, data) | {AWAY: is_away(data)}
        row = {**row, "key": source_key(data), "sha256": hashlib.sha256(data).hexdigest()}
        limits = self.options.model_dump(include={"max_pixels", "max_short_side_px"})
        try:
            photograph = normalise(data, **limits)
        except Refused as refused:
            return {**row, "refusal": refused.reason, "format": refused.format}
        except Exception as error:  # a decoder's error about one file is that row's error
            return failed(row, error)
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
