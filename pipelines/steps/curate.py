"""curate: every input file becomes a row: its normalised image and measurements, a refusal, or an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from crispedit import images
from crispedit.cascade import Cascade, describe
from crispedit.normalise import Refused, normalise
from crispedit.pipelines import sources
from crispedit.pipelines.engine import Row, Stage, Work
from crispedit.pipelines.pairs import PairsSource
from crispedit.pipelines.recipe import Curate
from crispedit.pipelines.run import Run, curate_table
from crispedit.pipelines.steps import imported
from crispedit.recipe import Pool
from crispedit.record import Sample, source_key
from crispedit.shards import journal


def work(run: Run, limit: int | None = None) -> Work:
    """The files that have no row yet, the first `limit` of them in listing order."""
    recipe = run.recipe
    folder, table = run.folder("curate"), curate_table(recipe.source_cascade)
    known = set(journal.read(folder, table, ["uri"]).column("uri").to_pylist())
    found = (
        imported.entries(recipe.source)
        if isinstance(recipe.source, PairsSource)
        else sources.entries(recipe.source)
    )
    listed = [entry for entry in found if entry.uri not in known][:limit]
    plan = [
        {
            "uri": e.uri,
            "entry": json.dumps(e.to_row()),
            "dataset": e.dataset,
            "licence": e.licence,
            "caption": e.caption,
        }
        for e in listed
    ]
    wire = pa.schema([pa.field("entry", pa.string()), *table.schema])
    return Work("curate", folder, table, plan, stages(run), wire, lambda row: [row], len(plan), key="uri")


def committed(run: Run) -> int:
    """How many files have a row."""
    table = curate_table(run.recipe.source_cascade)
    return int(journal.read(run.folder("curate"), table, ["uri"]).num_rows)


def stages(run: Run) -> list[Stage]:
    """Normalising with the filters that share its pixels; then a pool for each that needs a GPU or is given its own."""
    recipe, cascade = run.recipe, run.recipe.source_cascade
    apart = [name for name, f in cascade.filters.items() if recipe.curate.filters[name].apart(f.gpus)]
    shared = [name for name in cascade.filters if name not in apart]
    return [
        Normalise(recipe.curate, cascade, shared, recipe.curate.pool),
        *(Measure(n, cascade, recipe.curate.filters[n].pool, cascade.filters[n].gpus) for n in apart),
    ]


@dataclass
class Normalise:
    """Reads files, stores each as upright sRGB JPEG under the key of its original bytes, and measures it on the CPU."""

    options: Curate
    cascade: Cascade
    own: Sequence[str]
    pool: Pool
    name: str = "normalise"
    gpus: float = 0.0

    def load(self) -> None:
        _load(self.cascade, self.own)

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        read = sources.read([sources.Entry.from_row(json.loads(row["entry"])) for row in rows])
        done = [self._row(row, data) for row, data in zip(rows, read, strict=True)]
        _measure(self.cascade, self.own, done)
        return done

    def _row(self, row: Row, data: bytes | Exception) -> Row:
        row = {**row, "entry": None}
        if isinstance(data, Exception):
            return {**row, "error": describe(data)}
        row |= {"key": source_key(data), "sha256": hashlib.sha256(data).hexdigest()}
        try:
            found = normalise(
                data, max_pixels=self.options.max_pixels, max_short_side_px=self.options.max_short_side_px
            )
        except Refused as refused:
            return {**row, "refusal": refused.reason, "format": refused.format}
        except Exception as error:  # a decoder's complaint about one file is that file's row
            return {**row, "error": describe(error)}
        height, width = found.image.shape[:2]
        return {
            **row,
            "format": found.format,
            "original_width": found.width,
            "original_height": found.height,
            "width": width,
            "height": height,
            "image": images.encode_jpeg(found.image, self.options.jpeg_quality),
        }


@dataclass
class Measure:
    """Measures photographs with a filter that has an actor pool, and a GPU, of its own."""

    name: str
    cascade: Cascade
    pool: Pool
    gpus: float = 0.0

    def load(self) -> None:
        _load(self.cascade, [self.name])

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        done = [dict(row) for row in rows]
        _measure(self.cascade, [self.name], done)
        return done


def _load(cascade: Cascade, own: Sequence[str]) -> None:
    for name in own:
        cascade.filters[name].load()


def _measure(cascade: Cascade, own: Sequence[str], rows: Sequence[Row]) -> None:
    """Measure every photograph with every filter: these scores are what bounds are moved over later."""
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
