"""Pairs: other people's (source, instruction, edited) pairs as a source, by naming where each thing lies in
them.

A mapping names columns: of a parquet; member extensions of a WebDataset; fields of JSON lines whose images
are files. A dot steps into lists and objects, as in `edited_prompt_list.0` and `json.captions.source`.
Mappings of public datasets lie in `configs/datasets`; a recipe names one and may override any of it.

As in `crispedit.pipelines.sources`, whatever looks like a pair is listed, and what is wrong with it is its own error.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from crispedit.pipelines import sources
from crispedit.pipelines.sources import (
    Entry,
    File,
    FolderSource,
    Member,
    Null,
    ParquetSource,
    Place,
    WebDatasetSource,
)


class Columns(BaseModel):
    """Where a pair's parts lie."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    edited: str
    instruction: str
    mask: str | None = None
    """The edit mask, white where the edit is; leave it out where the convention is another."""
    category: str | None = None
    """What the dataset calls the kind of edit: see the aliases in `configs/categories`."""
    source_caption: str | None = None
    target_caption: str | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The text columns that are mapped, by the name of the part."""
        parts = ("instruction", "category", "source_caption", "target_caption")
        return {part: getattr(self, part) for part in parts if getattr(self, part) is not None}

    @property
    def images(self) -> dict[str, str]:
        """The image columns that are mapped, likewise."""
        return {part: getattr(self, part) for part in ("source", "edited", "mask") if getattr(self, part)}


class PairsSource(Place):
    """Existing pairs: `path` is a file, a folder, a glob or a brace pattern of files of the layout."""

    kind: Literal["pairs"] = "pairs"
    mapping: str | None = None
    """A file of `configs/datasets`, which fills in whatever is not given here."""
    layout: Literal["parquet", "webdataset", "jsonl"]
    """parquet: rows; webdataset: uncompressed tars; jsonl: a JSON object a line (or a .json with a list of
    them), which names image files."""
    columns: Columns
    images: str = "."
    """For jsonl, the folder that image paths start from, relative to the file that holds them."""

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


AnySource = Annotated[
    FolderSource | WebDatasetSource | ParquetSource | PairsSource, Field(discriminator="kind")
]


def mappings() -> dict[str, dict[str, Any]]:
    """The mappings that ship, by name: what a `source` section of kind pairs would say."""
    folder = resources.files("crispedit.configs") / "datasets"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name)
    return {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text(encoding="utf-8")) for f in found}


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair of a source: its words, and where its images are. All fields survive a parquet or JSON."""

    uri: str
    """Unique in the source: `x.parquet#row`, `x.tar#key`, `x.jsonl#line`."""
    source: Entry | None = None
    edited: Entry | None = None
    mask: Entry | None = None
    instruction: str | None = None
    """None where the dataset has none for this pair."""
    category: str | None = None
    """In the dataset's own words."""
    source_caption: str | None = None
    target_caption: str | None = None
    dataset: str | None = None
    licence: str | None = None
    error: str | None = None
    """Why there is nothing to read, where the listing already knows."""

    def to_row(self) -> dict[str, Any]:
        """Strings, integers, None, and dicts of them for the images."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Pair:
        """The pair of `to_row`; other columns of a table are not its business."""
        values = {name: row[name] for name in cls.__slots__}
        for part in ("source", "edited", "mask"):
            values[part] = None if values[part] is None else Entry.from_row(values[part])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class PairImages:
    """The image files of a pair, as they are stored."""

    source: bytes
    edited: bytes
    mask: bytes | None = None


def pairs(source: PairsSource) -> Iterator[Pair]:
    """The pairs of a source, in the order of its files, one at a time: there may be millions.

    ValueError if there are none, or a column is not there.
    """
    found = _LISTED[source.layout](source, sources.files(source.path))
    first = next(found, None)
    if first is None:
        raise ValueError(f"source.path: no pairs in {source.path!r} for layout {source.layout!r}")
    return itertools.chain([first], found)


def read(wanted: Sequence[Pair]) -> list[PairImages | Exception]:
    """The images of each pair, in order, or the exception that says why there are none. A null mask is no
    mask.

    As `sources.read`: each column of a parquet row group is decoded once per call.
    """
    entries = [(i, part) for i, pair in enumerate(wanted) for part in ("source", "edited", "mask")]
    entries = [(i, part) for i, part in entries if getattr(wanted[i], part) is not None]
    answers: list[dict[str, bytes | Exception]] = [{} for _ in wanted]
    for (i, part), answer in zip(
        entries, sources.read([getattr(wanted[i], part) for i, part in entries]), strict=True
    ):
        if not (part == "mask" and isinstance(answer, Null)):
            answers[i][part] = answer
    return [_images(pair, answer) for pair, answer in zip(wanted, answers, strict=True)]


def _images(pair: Pair, answers: Mapping[str, bytes | Exception]) -> PairImages | Exception:
    if pair.error is not None:
        return ValueError(pair.error)
    images: dict[str, bytes] = {}
    for part, answer in answers.items():
        if isinstance(answer, Exception):
            return type(answer)(f"{part} image: {answer}")
        images[part] = answer
    return PairImages(images["source"], images["edited"], images.get("mask"))


def _pair(source: PairsSource, uri: str, /, **found: Any) -> Pair:
    return Pair(uri, dataset=source.dataset, licence=source.licence, **found)


# What a column names


def dig(value: object, path: str) -> object:
    """What lies at a dotted path of nested lists and objects. LookupError, saying what is there, if nothing
    does.

    A name that holds dots itself is found before they are taken as steps.
    """
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        steps = path.split(".")
        for count in range(len(steps) - 1, 0, -1):
            name = ".".join(steps[:count])
            if name in value:
                return dig(value[name], ".".join(steps[count:]))
        raise LookupError(f"no {path!r} among {', '.join(map(str, value)) or 'nothing'}")
    step, _, rest = path.partition(".")
    if isinstance(value, Sequence) and not isinstance(value, str) and step.lstrip("-").isdigit():
        if not -len(value) <= int(step) < len(value):
            raise LookupError(f"no item {step} in a list of {len(value)}")
        return dig(value[int(step)], rest) if rest else value[int(step)]
    raise LookupError(f"no {path!r} in {type(value).__name__}")


def _texts(columns: Columns, row: Mapping[str, Any]) -> dict[str, str | None]:
    """The mapped texts of a row. LookupError or ValueError says which is not there or no text."""
    found: dict[str, str | None] = {}
    for part, path in columns.texts.items():
        value = dig(row, path)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{part}: {path!r} is {type(value).__name__}, not text")
        # "<image>" is LLaVA's mark for where the image stands in a prompt.
        found[part] = (value or "").replace("<image>", "").strip() or None
    return found


# Layouts


def _of_parquets(source: PairsSource, files: Iterable[File]) -> Iterator[Pair]:
    for file in files:
        if file.error is not None:
            yield _pair(source, file.uri, error=f"{file.uri}: {file.error}")
        elif sources.suffix_of(file.uri) == ".parquet":
            yield from _of_parquet(source, file)


def _of_parquet(source: PairsSource, file: File) -> Iterator[Pair]:
    columns = source.columns
    number = 0
    try:
        with file.open() as opened:
            table = pq.ParquetFile(opened)
            schema = table.schema_arrow
            sources.check_columns(file, schema, _options(columns.images), {})
            tops = {part: _top(schema, path) for part, path in columns.texts.items()}
            plain = {part: top for part, top in tops.items() if top == columns.texts[part]}
            sources.check_columns(file, schema, {}, _options(plain))
            for group in range(table.num_row_groups):
                start = number
                batches = table.iter_batches(row_groups=[group], columns=sorted(set(tops.values())))
                for row in itertools.chain.from_iterable(batch.to_pylist() for batch in batches):
                    uri = f"{file.uri}#{number}"
                    images = {
                        part: Entry(uri, file.path, row_group=group, row=number - start, column=column)
                        for part, column in columns.images.items()
                    }
                    try:
                        yield _pair(source, uri, **images, **_texts(columns, row))
                    except (LookupError, ValueError) as error:
                        yield _pair(source, uri, error=f"{uri}: {error}")
                    number += 1
    except (OSError, pa.ArrowException) as error:
        yield _pair(source, file.uri + "#", error=f"{file.uri}: {error}")


def _options(columns: Mapping[str, str]) -> dict[str, str | None]:
    return {f"columns.{part}": column for part, column in columns.items()}


def _top(schema: pa.Schema, path: str) -> str:
    """The column that a dotted path starts from; the path itself if there is none, for the check to complain
    of."""
    steps = path.split(".")
    names = [".".join(steps[:count]) for count in range(len(steps), 0, -1)]
    return next((name for name in names if name in schema.names), path)


def _of_tars(source: PairsSource, files: Iterable[File]) -> Iterator[Pair]:
    for file in files:
        if file.error is not None:
            yield _pair(source, file.uri, error=f"{file.uri}: {file.error}")
        elif sources.suffix_of(file.uri) == ".tar":
            yield from _of_tar(source, file)


def _of_tar(source: PairsSource, file: File) -> Iterator[Pair]:
    seen: Counter[str] = Counter()
    try:
        with file.open() as tar:
            # All headers first: reading texts between them would move the file under the tar reader.
            members = list(sources.tar_members(tar))
            for key, group in itertools.groupby(members, lambda member: sources.split_member(member.name)[0]):
                seen[key] += 1
                again = "" if seen[key] == 1 else f"#{seen[key]}"
                uri = f"{file.uri}#{sources.escape(key)}{again}"
                parts = {sources.split_member(member.name)[1]: member for member in group}
                damage = next((m.error for m in parts.values() if m.error is not None), None)
                if damage is not None:
                    yield _pair(source, uri, error=f"{uri}: {damage}")
                    continue
                try:
                    images = _members(source.columns, parts, uri, file.path)
                    yield _pair(source, uri, **images, **_texts(source.columns, _TarTexts(tar, parts)))
                except (LookupError, ValueError) as error:
                    yield _pair(source, uri, error=f"{uri}: {error}")
    except OSError as error:
        yield _pair(source, file.uri + "#", error=f"{file.uri}: {error.strerror or error}")


def _members(columns: Columns, parts: Mapping[str, Member], uri: str, path: str) -> dict[str, Entry]:
    """The image members of a sample. A mask may be missing; LookupError if a source or edited image is."""
    found = {}
    for part, extension in columns.images.items():
        if extension in parts:
            member = parts[extension]
            found[part] = Entry(f"{uri}.{extension}", path, offset=member.offset, size=member.size)
        elif part != "mask":
            raise LookupError(f"no member {extension!r} among {', '.join(parts)}")
    return found


class _TarTexts(Mapping[str, Any]):
    """The text members of a sample by extension, read when asked for; .json is parsed."""

    def __init__(self, tar: Any, parts: Mapping[str, Member]) -> None:
        self.tar, self.parts, self.found = tar, parts, dict[str, Any]()

    def __getitem__(self, extension: str) -> Any:
        if extension not in self.found:
            member = self.parts[extension]
            self.tar.seek(member.offset)
            text = self.tar.read(member.size).decode("utf-8")
            self.found[extension] = json.loads(text) if extension.endswith("json") else text
        return self.found[extension]

    def __contains__(self, extension: object) -> bool:
        return extension in self.parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def _of_lines(source: PairsSource, files: Iterable[File]) -> Iterator[Pair]:
    files = list(files)
    suffixes = {sources.suffix_of(file.uri) for file in files}
    wanted = ".jsonl" if ".jsonl" in suffixes else ".json"
    for file in files:
        if file.error is not None:
            yield _pair(source, file.uri, error=f"{file.uri}: {file.error}")
        elif sources.suffix_of(file.uri) == wanted:
            yield from _of_json(source, file)


def _of_json(source: PairsSource, file: File) -> Iterator[Pair]:
    number = 0
    try:
        with file.open() as opened:
            rows = opened if sources.suffix_of(file.uri) == ".jsonl" else _listed(opened.read())
            for row in rows:
                if row == b"\n":
                    continue
                uri = f"{file.uri}#{number}"
                number += 1
                try:
                    parsed = json.loads(row) if isinstance(row, bytes) else row
                    images = _files(source, parsed, uri, file.path)
                    yield _pair(source, uri, **images, **_texts(source.columns, parsed))
                except (LookupError, ValueError) as error:
                    yield _pair(source, uri, error=f"{uri}: {error}")
    except (OSError, ValueError) as error:
        yield _pair(source, file.uri + "#", error=f"{file.uri}: {error}")


def _listed(data: bytes) -> list[Any]:
    rows = json.loads(data)
    if not isinstance(rows, list):
        raise ValueError(f"a list of objects should be here, not {type(rows).__name__}")
    return rows


def _files(source: PairsSource, row: object, uri: str, path: str) -> dict[str, Entry]:
    """The image files that a row names; a mask may be null."""
    found = {}
    for part, column in source.columns.images.items():
        name = dig(row, column)
        if part == "mask" and name is None:
            continue
        if not isinstance(name, str) or not name:
            raise ValueError(f"{part}: {column!r} is {type(name).__name__}, not the path of a file")
        at = sources.beside(sources.folder_of(path, source.images), name)
        if at is None:
            raise ValueError(f"{part}: the path {name!r} leaves the folder of images")
        found[part] = Entry(uri, at)
    return found


_LISTED = {"parquet": _of_parquets, "webdataset": _of_tars, "jsonl": _of_lines}
