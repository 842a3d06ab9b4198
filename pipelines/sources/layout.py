"""Layout: detects a data set's layout of pairs and the meaning of its columns.

The user names a folder. `detected` finds the files with pairs there, and the columns by the names that public datasets
use. `survey` reads the first pairs before a build starts, describes them, and raises if none can be read.
"""

import io
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import pyarrow.parquet as pq
from PIL import Image

from crispedit.category import load_categories, resolve
from crispedit.classifier import needs_second_image
from crispedit.pipelines import sources
from crispedit.pipelines.sources import IMAGE_SUFFIXES, KNOWN, File, Skipped, pairs, suffix_of
from crispedit.pipelines.sources.pairs import LAYOUTS, Columns, Layout, PairsSource
from crispedit.shards import tar

NAMES: dict[str, list[str]] = {part: names.split() for part, names in KNOWN["columns"].items()}
"""Names of columns in public datasets by what they hold, likeliest first."""

LOOK = 300
"""Pairs that `survey` looks at."""
READ = 20
"""Pairs whose images it reads at a time, until one is readable."""
SHOWN = 8


class AmbiguousError(ValueError):
    """There are pairs, but which image is the source cannot be told."""


def detected(source: PairsSource) -> PairsSource:
    """The source with its layout and columns filled in. ValueError names a column that was not found, and lists the
    existing ones."""
    if source.layout is not None and source.columns.complete:
        return source
    files = sources.files(source.path, Skipped())
    settled = source.model_copy(update={"layout": source.layout or _layout(source.path, files)})
    there = columns_of(settled, files)
    endings = _endings(files) if settled.layout == "folder" else {}
    given = {part: column for part, column in source.columns.model_dump().items() if column is not None}
    for part, names in NAMES.items():
        if column := _guess([name for name in there if name not in given.values()], names):
            endings.setdefault(part, column)
    columns = Columns(**(endings | given))
    if (columns.source, columns.edited) == ("image", "edit_image") and not {"source", "edited"} & given.keys():
        raise AmbiguousError(
            f"source.columns: {source.path!r} has image and edit_image, and DiffSynth-Studio's edit_image is the "
            "source. Name them: source.columns.source=edit_image source.columns.edited=image, or the reverse"
        )
    for part in ("source", "edited", "instruction"):
        if getattr(columns, part) is None:
            raise ValueError(
                f"source.columns.{part}: no column of {source.path!r} (layout {settled.layout}) looks like it; "
                f"name it, one of {', '.join(there) or 'none'}"
            )
    return settled.model_copy(update={"columns": columns})


def _layout(path: str, files: Sequence[File]) -> Layout:
    counts = Counter(suffix_of(file.uri) for file in files)
    for suffix, layout in LAYOUTS.items():
        beside = (suffix == ".json" and _endings(files)) or (suffix == ".parquet" and counts[".tar"])
        if counts[suffix] and not beside:  # texts beside images, the index of tars
            return layout
    if any(counts[suffix] for suffix in IMAGE_SUFFIXES):
        return "folder"
    there = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counts.most_common(5))
    looked_for = ", ".join([*LAYOUTS, "images"])
    raise ValueError(f"source.path: no pairs in {path!r}: looked for {looked_for}; there are {there or 'no files'}")


def columns_of(source: PairsSource, files: Sequence[File]) -> list[str]:
    """The columns of the first file that can be read: of a parquet or CSV, the fields of JSON (one level into lists and
    objects), the extensions of a tar's first sample with the fields of its JSON, the ends of names in a folder."""
    if source.layout == "folder":
        return _name_ends(files)
    suffixes = [suffix for suffix, layout in LAYOUTS.items() if layout == source.layout]
    readable = [file for suffix in suffixes for file in files if suffix_of(file.uri) == suffix and file.error is None]
    if not readable:
        return []
    with sources.open_file(readable[0].path) as opened:
        if source.layout == "parquet":
            return list(pq.ParquetFile(opened).schema_arrow.names)
        if source.layout == "webdataset":
            return _members(opened)
        row = next(pairs.rows_of(readable[0], opened), None)
        return _fields(json.loads(row) if isinstance(row, bytes) else row)


def _members(opened: IO[bytes]) -> list[str]:
    members: list[str] = []
    first = None
    for member in itertools.islice(tar.members(opened), LOOK):
        key, extension = tar.split_member(member.name)
        first = key if first is None else first
        if key != first:
            break
        members.append(extension)
        if extension.endswith("json") and member.size <= pairs.MOST_TEXT_BYTES:
            members += [f"{extension}.{name}" for name in _fields(json.loads(member.read(opened)))]
    return members


def _fields(row: object) -> list[str]:
    fields = []
    for name, value in row.items() if isinstance(row, Mapping) else ():
        if isinstance(value, list):
            fields.append(f"{name}.0")
        elif isinstance(value, Mapping):
            fields += [f"{name}.{inner}" for inner in value]
        else:
            fields.append(str(name))
    return fields


def _guess(there: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that has the first of these names: `json.edit_prompt` and `Edit Prompt` count as edit_prompt,
    `source.jpg` as source, `input_images.0` as input_images or input_image."""
    known: dict[str, str] = {}
    for column in there:
        parts = re.sub("[ -]", "_", column.casefold()).split(".")
        steps = [step for step in parts if step not in ("0", "json") and f".{step}" not in IMAGE_SUFFIXES]
        if steps:
            known.setdefault(steps[-1], column)
            known.setdefault(steps[-1].removesuffix("s"), column)
    return next((known[name] for name in names if name in known), None)


def _endings(files: Sequence[File]) -> dict[str, str]:
    """The endings of names by which most files of a folder form pairs, and that of their texts."""
    stems = {os.path.splitext(file.uri)[0] for file in files if suffix_of(file.uri) in IMAGE_SUFFIXES}
    best: tuple[int, str, str] = (0, "", "")
    for (one, other), mark in itertools.product(KNOWN["endings"], "_-."):
        ending = mark + one
        count = sum(stem.removesuffix(ending) + mark + other in stems for stem in stems if stem.endswith(ending))
        best = max(best, (count, ending, mark + other))
    if not best[0]:
        return {}
    endings = {"source": best[1], "edited": best[2]}
    keys = {stem.removesuffix(best[1]) for stem in stems if stem.endswith(best[1])}
    for ending in (".txt", "_instruction.txt", "_prompt.txt", ".instruction.txt"):
        if any(file.uri.removesuffix(ending) in keys for file in files if file.uri.endswith(ending)):
            return endings | {"instruction": ending}
    beside = [file for file in files if file.uri.removesuffix(".json") in keys and file.uri.endswith(".json")]
    for file in beside[:1]:
        with sources.open_file(file.path) as opened:
            row = json.loads(opened.read(pairs.MOST_TEXT_BYTES))
        for part, names in NAMES.items():
            if column := _guess(_fields(row), names):
                endings.setdefault(part, f".json.{column}")
    return endings


def _name_ends(files: Sequence[File]) -> list[str]:
    """The endings of file names after the last separator, the most frequent first: `_source.png`, `.txt`."""
    ends: Counter[str] = Counter()
    for file in files:
        stem, suffix = os.path.splitext(os.path.basename(file.uri))
        mark = max(stem.rfind(mark) for mark in "_-.")
        ends[(stem[mark:] if mark > 0 else "") + suffix] += 1
    return [end for end, _ in ends.most_common(SHOWN)]


# The survey


def without_alias_text(words: Mapping[str, int]) -> str:
    """A message about category words without an alias."""
    shown = ", ".join(f"{word!r} {pairs}" for word, pairs in Counter(words).most_common(SHOWN))
    return (
        f"category words without an alias, whose instructions are classified instead: {shown} "
        "(aliases are in configs/categories; or set categories.NAME.file)"
    )


@dataclass
class Survey:
    """A description of a source's first pairs."""

    source: PairsSource
    pairs: int = 0
    more: bool = False
    """Whether there are more pairs."""
    errors: Counter[str] = field(default_factory=Counter)
    """Pairs that cannot be listed, by reason without the row."""
    without_alias: Counter[str] = field(default_factory=Counter)
    """Pairs by category word, for words that are no category's alias."""
    second_image: int = 0
    short_sides: list[int] = field(default_factory=list)
    """Short sides of the source images that were read, in pixels."""

    def text(self) -> str:
        lines = [
            f"source: pairs, layout {self.source.layout}, columns {_told(self.source.columns)}",
            f"looked at {'the first' if self.more else 'all'} {self.pairs} pairs",
        ]
        if self.errors:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in self.errors.most_common(3))
            lines.append(f"cannot be read: {self.errors.total()}: {reasons}")
        if self.without_alias:
            lines.append(without_alias_text(self.without_alias))
        if self.second_image:
            lines.append(f"instructions that need a second image, which are refused: {self.second_image}")
        if self.short_sides:
            sides = sorted(self.short_sides)
            median = sides[len(sides) // 2]
            lines.append(f"short sides of {len(sides)} sources: {sides[0]} to {sides[-1]} px, median {median}")
        return "\n".join(lines)


def survey(source: PairsSource) -> Survey:
    """A survey of the first `LOOK` pairs. ValueError if none can be read, with the reason, the row and the existing
    columns."""
    first_pairs = list(itertools.islice(pairs.pairs(source), LOOK + 1))
    looked = first_pairs[:LOOK]
    survey = Survey(source, len(looked), more=len(first_pairs) > LOOK)
    categories = load_categories()
    for pair in looked:
        if pair.error is not None:
            survey.errors[pair.error.removeprefix(f"{pair.uri}: ")] += 1
        if pair.category:
            try:
                resolve(pair.category, categories)
            except ValueError:
                survey.without_alias[pair.category] += 1
        survey.second_image += bool(pair.instruction) and needs_second_image(str(pair.instruction))
    whole = [pair for pair in looked if pair.error is None]
    first = next((pair.error for pair in looked if pair.error is not None), None)
    for start in range(0, len(whole), READ):
        for answer in pairs.read(whole[start : start + READ]):
            if isinstance(answer, Exception):
                first = first or str(answer)
            else:
                survey.short_sides += short_sides([answer.source])
        if survey.short_sides:
            return survey
    there = ", ".join(columns_of(source, sources.files(source.path, Skipped())))
    beside = f"; image paths start from source.images={source.images}" if source.layout in ("jsonl", "csv") else ""
    raise ValueError(
        f"source: none of the first {len(looked)} pairs of {source.path!r} can be read. The first: {first}. "
        f"The columns are {there or 'none'}; read as pairs: {_told(source.columns)}{beside}"
    )


def _told(columns: Columns) -> str:
    return ", ".join(f"{part}={name}" for part, name in columns.model_dump().items() if name)


def short_sides(images: Iterable[bytes | Exception]) -> list[int]:
    """The short sides of the readable images, in pixels."""
    sides = []
    for data in images:
        with suppress(OSError, ValueError, Image.DecompressionBombError):
            if isinstance(data, bytes):
                sides.append(min(Image.open(io.BytesIO(data)).size))
    return sides
