"""Pairs: existing (source, instruction, edited) pairs as a source, read by naming their columns.

A mapping names columns of a parquet, member extensions of a WebDataset, or fields of JSON lines whose images are files.
A dot steps into lists and objects, as in `edited_prompt_list.0` and `json.captions.source`. `configs/datasets` has
mappings of public datasets; a recipe names one and may override any of it.

As in `crispedit.pipelines.sources`, everything that looks like a pair is listed, and a problem with it is its own
error.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from crispedit.pipelines import sources
from crispedit.pipelines.sources import IMAGE_SUFFIXES, Entry, File, Null, PhotoSource, Place, Skipped, parquet, texts
from crispedit.pipelines.sources.files import LOOK_UP, READ_AHEAD
from crispedit.pipelines.sources.index import is_container, read_once
from crispedit.shards import tar

IMAGES = ("source", "edited", "mask")
MOST_TEXT_BYTES = 16 << 20
"""A longer text member is not read: it is not an instruction."""


class Columns(BaseModel):
    """The columns of a pair's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    source: str | None = None
    edited: str | None = None
    instruction: str | None = None
    mask: str | None = None
    """The edit mask, white where the edit is; leave it out for another convention."""
    category: str | None = None
    """The dataset's word for the kind of edit: see the aliases in `configs/categories`."""
    source_caption: str | None = None
    target_caption: str | None = None
    id: str | None = None
    """The user's own name of a pair, which reports, labels and shards then show; a text or a number."""
    licence: str | None = None
    """The licence of this pair, if it differs from row to row; likewise `dataset`."""
    dataset: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the three required columns are named. Missing ones are detected."""
        return None not in (self.source, self.edited, self.instruction)

    @property
    def texts(self) -> dict[str, str]:
        """The mapped text columns, by the name of the part."""
        parts = ("instruction", "category", "source_caption", "target_caption")
        return {part: getattr(self, part) for part in parts if getattr(self, part) is not None}

    @property
    def names(self) -> dict[str, str]:
        """The mapped columns that name a pair and its origin, likewise; they may hold numbers."""
        return {part: getattr(self, part) for part in ("id", "licence", "dataset") if getattr(self, part)}

    @property
    def images(self) -> dict[str, str]:
        """The mapped image columns, likewise."""
        return {part: getattr(self, part) for part in IMAGES if getattr(self, part)}


Layout = Literal["parquet", "webdataset", "jsonl", "csv", "folder"]

LAYOUTS: dict[str, Layout] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tar": "webdataset",
    ".json": "jsonl",
}
"""The layout for each suffix; the first that is present counts."""


class PairsSource(Place):
    """Existing pairs: `path` is a file, a folder, a glob or a brace pattern of files of the layout."""

    kind: Literal["pairs"] = "pairs"
    mapping: str | None = None
    """A file of `configs/datasets` that fills in what is not given here."""
    layout: Layout | None = None
    """parquet: rows; webdataset: uncompressed tars; jsonl: a JSON object a line (or a .json with a list of them), and
    csv: a row a line, which name image files; folder: image files that belong together by name, such as 12_source.jpg,
    12_edited.jpg and 12.txt. Null: what `path` holds (`crispedit.pipelines.sources.layout`)."""
    columns: Columns = Columns()
    """Columns that are not named here are detected by the names that public datasets use."""
    images: str = "."
    """For jsonl and csv, the folder that image paths start from, relative to the file that holds them."""
    best_of_n: bool = False
    """Several edits of one source with one instruction are candidates for one pair, and the best is kept. False: each
    is a pair."""

    @model_validator(mode="before")
    @classmethod
    def _mapped(cls, given: object) -> object:
        if not isinstance(given, dict) or given.get("mapping") is None:
            return given
        known = mappings()
        if given["mapping"] not in known:
            raise ValueError(f"there is no mapping {given['mapping']!r}; choose from {', '.join(known)}")
        default = known[given["mapping"]]
        columns = {**default["columns"], **(given.get("columns") or {})}
        return {**default, **{k: v for k, v in given.items() if v is not None}, "columns": columns}


AnySource = Annotated[PhotoSource | PairsSource, Field(discriminator="kind")]


def mappings() -> dict[str, dict[str, Any]]:
    """The shipped mappings by name: each is the content of a `source` section of kind pairs."""
    folder = resources.files("crispedit.configs") / "datasets"
    paths = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name)
    return {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text(encoding="utf-8")) for f in paths}


@dataclass(frozen=True, slots=True)
class ImportedPair:
    """One pair of a source: its texts, and where its images are. All fields can be stored in parquet or JSON."""

    uri: str
    """Unique in the source: `x.parquet#row`, `x.tar#key`, `x.jsonl#line`."""
    source: Entry | None = None
    edited: Entry | None = None
    mask: Entry | None = None
    instruction: str | None = None
    """None if the dataset has none for this pair."""
    category: str | None = None
    """The dataset's own word."""
    source_caption: str | None = None
    target_caption: str | None = None
    dataset: str | None = None
    licence: str | None = None
    id: str | None = None
    """The user's own name of the pair."""
    error: str | None = None
    """Why the pair cannot be read, if the listing already knows."""

    def to_row(self) -> dict[str, Any]:
        """A row of strings, integers, None, and dicts of them for the images."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ImportedPair:
        """The pair of `to_row`; other columns are ignored."""
        images = {part: None if row[part] is None else Entry.from_row(row[part]) for part in IMAGES}
        return cls(**{name: row[name] for name in cls.__slots__} | images)


@dataclass(frozen=True, slots=True)
class PairImages:
    """The image files of a pair, as stored."""

    source: bytes
    edited: bytes
    mask: bytes | None = None


def pairs(source: PairsSource) -> Iterator[ImportedPair]:
    """Iterate over the pairs of a source, in the order of its files.

    ValueError if there are none, or a column is missing.
    """
    skipped = Skipped()
    listed = (pair for file in files(source, skipped) for pair in of_file(source, file, skipped, patient=False))
    first = next(listed, None)
    if first is None:
        raise ValueError(sources.nothing(source.path, f"pairs, layout {source.layout}", skipped))
    return itertools.chain([first], listed)


def files(source: PairsSource, skipped: Skipped, listed: Collection[str] = ()) -> list[File]:
    """The files of a source that hold pairs, judged by their names, except those `listed` before; others are
    counted."""
    kept = [file for file in sources.files(source.path, skipped) if file.uri not in listed]
    if source.layout == "folder":
        return [file for file in kept if _is_source(source, file, skipped)]
    suffixes = [suffix for suffix, layout in LAYOUTS.items() if layout == source.layout]
    first_is_there = any(sources.suffix_of(file.uri) == suffixes[0] for file in kept)
    suffix = suffixes[0] if first_is_there else suffixes[-1]
    return [file for file in kept if is_container(file, suffix, skipped)]


def of_file(
    source: PairsSource, file: File, skipped: Skipped, patient: bool = True, folder: str | None = None
) -> Iterator[ImportedPair]:
    """The pairs of one file, read once from start to end. Huge parquet row groups are split into `folder`, if given.

    An unreadable file is one pair with the error; but if `patient`, a transient error is raised, so that the caller can
    try again. ValueError if a column is missing.
    """
    readers: dict[str, Callable[[IO[bytes]], Iterable[ImportedPair]]] = {
        "parquet": lambda opened: _of_parquet(source, file, pq.ParquetFile(opened), folder),
        "webdataset": lambda opened: _of_tar(source, file, opened, skipped),
        "folder": lambda _: [_of_names(source, file)],
    }
    read = readers.get(str(source.layout), lambda opened: _of_rows(source, file, opened))
    block = LOOK_UP if source.layout == "parquet" else READ_AHEAD
    return read_once(file, block, read, lambda uri, error: _pair(source, uri, error=error), patient)


def read(wanted: Sequence[ImportedPair], root: str | None = None) -> list[PairImages | Exception]:
    """The images of each pair, in order, or an exception. A null mask is no mask. `root` is the run whose listing holds
    split row groups.

    As in `sources.read`, each column of a parquet row group is decoded once per call.
    """
    images = [entry for pair in wanted for part in IMAGES if (entry := getattr(pair, part)) is not None]
    answers = iter(sources.read(images, root))
    return [_images(pair, answers) for pair in wanted]


def _images(pair: ImportedPair, answers: Iterator[bytes | Exception]) -> PairImages | Exception:
    """What the next answers, one for each image of the pair, make of it."""
    images: dict[str, bytes] = {}
    failed: Exception | None = None if pair.error is None else ValueError(pair.error)
    for part in IMAGES:
        entry: Entry | None = getattr(pair, part)
        if entry is None:
            continue
        answer = next(answers)
        if isinstance(answer, bytes):
            images[part] = answer
        elif failed is None and not (part == "mask" and isinstance(answer, Null)):
            place = f" at {sources.unescape(entry.path)}" if entry.offset is None and entry.row is None else ""
            failed = type(answer)(f"{part} image{place}: {answer}")
            failed.__cause__ = answer.__cause__  # which decides whether it is transient
    return PairImages(**images) if failed is None else failed


def _pair(source: PairsSource, uri: str, /, **parts: Any) -> ImportedPair:
    own = {part: parts.pop(part, None) or getattr(source, part) for part in ("dataset", "licence")}
    return ImportedPair(uri, **own, **parts)


# What a column names


def dig(value: object, path: str) -> object:
    """The value at a dotted path of nested lists and objects. LookupError, with the existing names, if there is none.

    A name that itself contains dots has precedence over steps.
    """
    if isinstance(value, Mapping):
        for name in _prefixes(path):
            if name in value:
                return value[name] if name == path else dig(value[name], path[len(name) + 1 :])
        raise LookupError(f"no {path!r} among {', '.join(map(str, value)) or 'nothing'}")
    step, _, rest = path.partition(".")
    if isinstance(value, Sequence) and not isinstance(value, str) and step.lstrip("-").isdigit():
        if not -len(value) <= int(step) < len(value):
            raise LookupError(f"no item {step} in a list of {len(value)}")
        return dig(value[int(step)], rest) if rest else value[int(step)]
    raise LookupError(f"no {path!r} in {type(value).__name__}")


def _prefixes(path: str) -> list[str]:
    """A dotted path, and what it begins with: "a.b.c", "a.b", "a"."""
    steps = path.split(".")
    return [".".join(steps[:count]) for count in range(len(steps), 0, -1)]


def _texts(columns: Columns, row: Mapping[str, Any]) -> dict[str, str | None]:
    """The mapped texts of a row. LookupError names a missing one, ValueError one that is not text."""
    by_part: dict[str, str | None] = {}
    for part, path in columns.texts.items():
        value = dig(row, path)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{part}: {path!r} is {type(value).__name__}, not text")
        text = value or ""
        if text.count("<image>") == 1:  # LLaVA's placeholder; several stay, because they say which image is meant
            text = text.replace("<image>", "")
        by_part[part] = texts.clean(text) or None
    for part, path in columns.names.items():
        value = dig(row, path)
        if isinstance(value, Mapping | list):
            raise ValueError(f"{part}: {path!r} is {type(value).__name__}, not a text or a number")
        by_part[part] = None if value is None else texts.storable(str(value))
    return by_part


# Layouts


def _of_parquet(source: PairsSource, file: File, table: pq.ParquetFile, folder: str | None) -> Iterator[ImportedPair]:
    columns = source.columns
    schema = table.schema_arrow
    tops = {part: _top(schema, path) for part, path in (columns.texts | columns.names).items()}
    # What lies deeper than its column is checked row by row.
    plain = {part: top for part, top in tops.items() if columns.texts.get(part) == top}
    names = {part: tops[part] for part in columns.names}
    sources.check_columns("source.columns", file.uri, schema, columns.images, plain, names)
    for uri, places, row in parquet.rows(file, table, columns.images, set(tops.values()), folder):
        if "mask" in places and places["mask"].get("error") == parquet.EMPTY:
            del places["mask"]
        images = {part: Entry(uri, **place) for part, place in places.items()}
        try:
            yield _pair(source, uri, **images, **_texts(columns, row))
        except (LookupError, ValueError) as error:
            yield _pair(source, uri, error=f"{uri}: {error}")


def _top(schema: pa.Schema, path: str) -> str:
    """The column that a dotted path starts from; if there is none, the path itself, which the check then rejects."""
    return next((name for name in _prefixes(path) if name in schema.names), path)


def _of_tar(source: PairsSource, file: File, opened: IO[bytes], skipped: Skipped) -> Iterator[ImportedPair]:
    seen: Counter[str] = Counter()
    for sample in _samples(source.columns, opened, skipped):
        seen[sample.key] += 1
        again = "" if seen[sample.key] == 1 else f"#{seen[sample.key]}"
        uri = f"{file.uri}#{sources.escape(sample.key)}{again}"
        try:
            if sample.damage is not None:
                raise ValueError(sample.damage)
            images = _members(source.columns, sample.members, uri, file.path)
            words = {extension: _text(extension, data) for extension, data in sample.texts.items()}
            yield _pair(source, uri, **images, **_texts(source.columns, words))
        except (LookupError, ValueError, RecursionError) as error:
            yield _pair(source, uri, error=f"{uri}: {error}")


@dataclass
class _Sample:
    """The members of a sample by extension, and the bytes of its text members."""

    key: str
    members: dict[str, tar.Member] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    damage: str | None = None


def _samples(columns: Columns, opened: IO[bytes], skipped: Skipped) -> Iterator[_Sample]:
    """The samples of a tar: neighbours whose base names agree up to the first dot, as in WebDataset, or up to a mapped
    extension. A repeated extension begins another sample of that key. Other members are counted."""
    images = set(columns.images.values())
    words = {prefix.lower() for path in (columns.texts | columns.names).values() for prefix in _prefixes(path)}
    mapped = images | words
    sample: _Sample | None = None
    for member in tar.members(opened):
        if member.other is not None:
            skipped.add(member.other)
            continue
        key, extension = _split(member.name, mapped)
        known = member.damage or extension in mapped
        if sample is None or key != sample.key or (known and extension in sample.members):
            if not known and sample is not None and key == sample.key.partition(".")[0]:
                skipped.file(member.name)
                continue
            yield from _finished(sample, images, skipped)
            sample = _Sample(key)
        if not known:
            skipped.file(member.name)
            continue
        if member.error is not None:
            sample.damage = member.error
        if extension in words and member.error is None and member.size <= MOST_TEXT_BYTES:
            sample.texts[extension] = member.read(opened)
        sample.members[extension] = member
    yield from _finished(sample, images, skipped)


def _split(name: str, mapped: Collection[str]) -> tuple[str, str]:
    """(key, extension) of a member: as in WebDataset, or with the longest mapped extension."""
    key, extension = tar.split_member(name)
    steps = extension.split(".")
    for count in range(len(steps)):
        if (rest := ".".join(steps[count:])) in mapped:
            return name[: -len(rest) - 1] if count else key, rest
    return key, extension


def _finished(sample: _Sample | None, images: Collection[str], skipped: Skipped) -> Iterator[_Sample]:
    """The sample, unless it only accompanies one: `1.extra.json` beside `1.json` and `1.source.jpg`. WebDataset would
    end its key at the dot."""
    if sample is None:
        return
    dotted = "." in sample.key.rpartition("/")[2]
    if dotted and not images & sample.members.keys() and sample.damage is None:
        for member in sample.members.values():
            skipped.file(member.name)
    elif sample.members or sample.damage:
        yield sample


def _members(columns: Columns, parts: Mapping[str, tar.Member], uri: str, path: str) -> dict[str, Entry]:
    """The image members of a sample. A mask may be missing; LookupError if a source or edited image is."""
    entries = {}
    for part, extension in columns.images.items():
        if (member := parts.get(extension)) is not None:
            entries[part] = Entry(f"{uri}.{extension}", path, offset=member.offset, size=member.size)
        elif part != "mask":
            raise LookupError(f"no member {extension!r} among {', '.join(parts)}")
    return entries


def _text(name: str, data: bytes) -> Any:
    """The text of a file or member of this name; JSON is parsed."""
    return json.loads(data) if name.endswith("json") else texts.decode(data)


def _of_rows(source: PairsSource, file: File, opened: IO[bytes]) -> Iterator[ImportedPair]:
    try:
        for number, row in enumerate(rows_of(file, opened)):
            uri = f"{file.uri}#{number}"
            try:
                parsed = json.loads(row) if isinstance(row, bytes) else row
                images = _files(source, parsed, uri, file.path)
                yield _pair(source, uri, **images, **_texts(source.columns, parsed))
            except (LookupError, ValueError, RecursionError) as error:
                yield _pair(source, uri, error=f"{uri}: {error}")
    except (ValueError, RecursionError, csv.Error) as error:
        yield _pair(source, file.uri + "#", error=f"{file.uri}: {error}")


def rows_of(file: File, opened: IO[bytes]) -> Iterator[Any]:
    """The rows of JSON lines (bytes, not parsed yet), of a JSON list, or of a CSV."""
    suffix = sources.suffix_of(file.uri)
    if suffix == ".jsonl":
        return _lines(opened)
    if suffix == ".csv":
        return texts.csv_rows(opened)
    rows = json.loads(opened.read())
    if not isinstance(rows, list):
        raise ValueError(f"expected a list of objects, not {type(rows).__name__}")
    return iter(rows)


def _lines(opened: IO[bytes]) -> Iterator[bytes]:
    """The non-empty lines of a text, in UTF-8."""
    encoding = texts.encoding_of(opened.read(4))
    opened.seek(0)
    lines: Iterable[bytes] = opened
    if encoding in ("utf-16", "utf-32"):  # their line feed is more than one byte
        lines = (line.encode() for line in codecs.getreader(encoding)(opened))
    return (line for line in lines if line.strip(b"\xef\xbb\xbf \t\r\n"))


def _files(source: PairsSource, row: object, uri: str, path: str) -> dict[str, Entry]:
    """The image files that a row names; a mask may be null."""
    entries = {}
    for part, column in source.columns.images.items():
        name = dig(row, column)
        if part == "mask" and name is None:
            continue
        if not isinstance(name, str) or not name:
            raise ValueError(f"{part}: {column!r} is {type(name).__name__}, not the path of a file")
        try:
            at = sources.beside(sources.folder_of(path, source.images), name)
        except ValueError as error:
            raise ValueError(f"{part}: {error}") from error
        entries[part] = Entry(uri, at)
    return entries


# A folder of files


def _is_source(source: PairsSource, file: File, skipped: Skipped) -> bool:
    """Whether a file's name is that of a pair's source image."""
    ending = str(source.columns.source)
    if _stem(file.uri, ending) is not None:
        return True
    if all(_stem(file.uri, str(other)) is None for other in (source.columns.edited, source.columns.mask)):
        skipped.file(file.uri)
    return False


def _stem(name: str, ending: str) -> str | None:
    """The name without its suffix and ending: "a/12_source.jpg" is "a/12" for "_source". None for another file."""
    stem, suffix = os.path.splitext(name)
    return stem.removesuffix(ending) if suffix.lower() in IMAGE_SUFFIXES and stem.endswith(ending) else None


def _of_names(source: PairsSource, file: File) -> ImportedPair:
    """The pair of a source image, by the names of the files beside it."""
    columns = source.columns
    stem, suffix = _stem(file.path, str(columns.source)), os.path.splitext(file.path)[1]
    try:
        images = {"source": Entry(file.uri, file.path)}
        for part in ("edited", "mask"):
            ending = getattr(columns, part)
            tried = [f"{stem}{ending}{kind}" for kind in dict.fromkeys([suffix, *_USUAL])]
            edited = next((path for path in tried if ending and sources.exists(path)), None)
            if edited is not None:
                images[part] = Entry(file.uri, edited)
            elif part == "edited":
                raise LookupError(f"no edited image: there is no {tried[0]} (or .png, .jpg, .jpeg, .webp)")
        return _pair(source, file.uri, **images, **_texts(columns, _beside(columns, str(stem))))
    except (LookupError, ValueError, OSError) as error:
        return _pair(source, file.uri, error=f"{file.uri}: {error}")


_USUAL = (".png", ".jpg", ".jpeg", ".webp")


def _beside(columns: Columns, stem: str) -> dict[str, Any]:
    """The mapped texts beside an image by the endings of their files' names: `.txt`, `_prompt.txt`, `.json` (parsed).
    LookupError if one is missing."""
    words = {}
    for path in (columns.texts | columns.names).values():
        ending = next((ending for ending in _prefixes(path) if ending and sources.exists(stem + ending)), None)
        if ending is None:
            there = [ending for ending in (".txt", ".json") if sources.exists(stem + ending)]
            raise LookupError(f"no {path!r} among {', '.join(there) or 'nothing'}")
        if ending not in words:
            with sources.open_file(stem + ending) as opened:
                words[ending] = _text(ending, opened.read(MOST_TEXT_BYTES))
    return words
