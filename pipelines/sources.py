"""Sources: what a recipe's `source` section means, the photographs it lists, and their bytes.

Listing reads names and headers only, in an order that depends on nothing but the files. Nothing that looks
like an image is left out of it: what cannot be read (a dangling link, a pipe, the damaged end of a tar, a
folder without permission) is an `Entry` too, whose reading fails with a clear message, so that it ends as an
error row.

Paths are local, or any URL that fsspec knows (`s3://`, `gs://`, `https://`, `memory://`); an `https://`
folder ends in a slash.
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from pydantic import BaseModel, ConfigDict, Field

from crispedit import normalise

IMAGE_SUFFIXES = (
    *normalise.SUFFIXES,
    # what `normalise` declines: listed, so that they end as rejected rows and not as silence
    *(
        ".gif",
        ".bmp",
        ".dib",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".jpx",
        ".psd",
        ".svg",
    ),
    *(".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".qoi"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)

MAX_FILE_BYTES = 1 << 30
"""A larger "photograph" is not read: it would exhaust the node before the decoder could refuse it."""


class Place(BaseModel):
    """Where the files of a source are, and whose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    """Where the files are: a local path or a URL."""
    dataset: str | None = None
    """The name of the dataset, carried into every pair's provenance."""
    licence: str | None = None
    """The licence of the photographs, likewise."""


class FolderSource(Place):
    """Image files in a folder, recursively; hidden ones are skipped, links followed, each folder read
    once."""

    kind: Literal["folder"] = "folder"
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    """Which files are photographs, by the end of their name in lower case; the others are only counted."""


class WebDatasetSource(Place):
    """Image members of uncompressed tars: `path` is a tar, a folder of them, a glob or a brace pattern."""

    kind: Literal["webdataset"] = "webdataset"
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    """Which members are photographs, by the end of their name in lower case; ".source.jpg" works too."""
    caption: str | None = None
    """The extension of the member that holds the caption: "txt", or "json" for its field "caption"."""


class ParquetSource(Place):
    """Rows of parquet files: `path` is a file, a folder of them, a glob or a brace pattern."""

    kind: Literal["parquet"] = "parquet"
    image: str = "image"
    """The image column: bytes, or Hugging Face's struct {bytes, path}. A path without bytes is read relative
    to the parquet file, and may not leave its folder."""
    caption: str | None = None
    """The caption column, if there is one."""


Source = Annotated[FolderSource | WebDatasetSource | ParquetSource, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph of a source: what to call it and where its bytes are. All fields survive a parquet."""

    uri: str
    """Unique in the source and independent of where it lies: `a/b.jpg`, `x.tar#member`, `x.parquet#row`."""
    path: str
    """The file: a URL, or an absolute local path as `escape` writes it."""
    offset: int | None = None
    """Where a tar member's bytes start; None for a whole file or a row."""
    size: int | None = None
    row_group: int | None = None
    row: int | None = None
    """The row within its row group."""
    column: str | None = None
    caption: str | None = None
    dataset: str | None = None
    licence: str | None = None
    error: str | None = None
    """Why there is nothing to read, where the listing already knows."""

    def to_row(self) -> dict[str, Any]:
        """Strings, integers and None."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Entry:
        """The entry of `to_row`; other columns of a table are not its business."""
        return cls(**{name: row[name] for name in cls.__slots__})


@dataclass(frozen=True)
class Listing:
    """What a source holds: the entries in order, and how many other files there are by suffix."""

    entries: list[Entry]
    ignored: dict[str, int]


def entries(source: FolderSource | WebDatasetSource | ParquetSource) -> list[Entry]:
    """The photographs of a source, sorted. ValueError if there are none, or a column is not what it must
    be."""
    return listing(source).entries


def listing(source: FolderSource | WebDatasetSource | ParquetSource) -> Listing:
    """The photographs of a source, and what was left alone. Raises as `entries` does."""
    ignored: Counter[str] = Counter()
    if isinstance(source, FolderSource):
        found = list(_folder_entries(source, ignored))
    elif isinstance(source, WebDatasetSource):
        found = list(_tar_entries(source, ignored))
    else:
        found = list(_parquet_entries(source, ignored))
    if not found:
        others = ", ".join(
            f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common(5)
        )
        raise ValueError(
            f"source.path: no photographs in {source.path!r} for kind {source.kind!r}"
            f" (other files there: {others or 'none'})"
        )
    return Listing(found, dict(sorted(ignored.items())))


def read(wanted: Sequence[Entry]) -> list[bytes | Exception]:
    """The bytes of each entry, in order, or the exception that says why there are none.

    A parquet row group is decoded once, as long as calls go forward; remote files are fetched concurrently.
    All the answers are held in memory, so the caller chooses how many entries that may be.
    """
    answers: dict[int, bytes | Exception] = {}
    rows: defaultdict[tuple[str, int, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    remote: list[int] = []
    for i, entry in enumerate(wanted):
        if entry.error is not None:
            answers[i] = ValueError(entry.error)
        elif entry.size is not None and entry.size > MAX_FILE_BYTES:
            answers[i] = ValueError(
                f"{entry.uri}: {entry.size} bytes is more than {MAX_FILE_BYTES}: not read"
            )
        elif entry.row_group is not None and entry.row is not None and entry.column is not None:
            rows[entry.path, entry.row_group, entry.column][entry.row].append(i)
        elif is_url(entry.path):
            remote.append(i)
        else:
            answers[i] = _read_local(entry)
    answers.update(zip(remote, _read_remote([wanted[i] for i in remote]), strict=True))
    for (path, row_group, column), at in rows.items():
        for row, answer in _read_rows(path, row_group, column, sorted(at)).items():
            answers.update(dict.fromkeys(at[row], answer))
    return [answers[i] for i in range(len(wanted))]


# Names


class Null(ValueError):  # noqa: N818  what the cell is
    """A cell that should hold an image holds nothing."""


def escape(name: str) -> str:
    """A file name as UTF-8 text on one line, reversibly: `%`, `#` (which sets off a member), control
    characters and bytes that are not UTF-8 become %XX."""
    return re.sub(
        "[%#\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]",
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape")),
        name,
    )


def unescape(text: str) -> str:
    """The file name that `escape` wrote, with surrogates for bytes that are not UTF-8."""
    raw = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())
    return raw.decode("utf-8", "surrogateescape")


def is_url(path: str) -> bool:
    """Whether fsspec reads it; absolute local paths never hold "://"."""
    return "://" in path


def suffix_of(name: str) -> str:
    """The lower-case extension with its dot, or ""."""
    return os.path.splitext(name)[1].lower()


# Files


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source: its name in the listing, the path that reads it, and what is known against it."""

    uri: str
    path: str
    error: str | None = None

    def open(self) -> IO[bytes]:
        return _open(self.path)


def files(path: str) -> list[File]:
    """Every file under a folder, or matching a glob or brace pattern, or the one named; sorted by name,
    without hidden ones. ValueError if there is no such place."""
    found = _remote_files(path) if is_url(path) else _local_files(path)
    return sorted(found, key=lambda file: file.uri)


def _local_files(path: str) -> Iterator[File]:
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        base, matches = path, [path]
    else:
        patterns = [] if os.path.exists(path) else expand_braces(path)  # a name may hold brackets
        matches = [match for pattern in patterns for match in _glob(pattern)] or [path]
        if not any(map(os.path.exists, matches)):
            raise ValueError(f"source.path: there is no {path!r}")
        base = os.path.dirname(path if os.path.exists(path) else re.split(r"[*?\[{]", path)[0])
    for match in matches:
        for name, error in _walk(match) if os.path.isdir(match) else [(match, None)]:
            yield File(escape(os.path.relpath(name, base)), escape(name), error)


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]


def _walk(root: str) -> Iterator[tuple[str, str | None]]:
    """Every path below that is not a folder, and every folder that cannot be listed with why."""
    seen: set[tuple[int, int]] = set()
    # Linked folders wait until the real ones are done, so that a folder goes by its own name.
    folders, links = [root], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                items = sorted(listed, key=lambda item: os.fsencode(item.name), reverse=True)
        except OSError as error:
            yield folder, f"the folder cannot be listed: {error.strerror}"
            continue
        for item in items:
            if item.name.startswith("."):
                continue
            if _is_folder(item):
                (links if item.is_symlink() else folders).append(item.path)
            else:
                yield item.path, None
        links.sort(key=os.fsencode, reverse=True)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()  # unlike os.path.isdir, asks the disk about links only
    except OSError:  # a link to itself
        return False


def _remote_files(path: str) -> Iterator[File]:
    names: list[str] = []
    for pattern in expand_braces(path):
        fs, inside = url_to_fs(pattern)
        # Over HTTP only the slash tells a folder: asking would download the file.
        is_folder = pattern.endswith("/") if pattern.startswith("http") else fs.isdir(inside)
        if glob.has_magic(inside):
            names += fs.glob(inside)
        elif is_folder:
            names += fs.find(inside)
        else:
            names.append(inside)
    if not any(map(fs.exists, names)):
        raise ValueError(f"source.path: there is no file at {path!r}")
    base = inside.rstrip("/") if is_folder else os.path.dirname(re.split(r"[*?\[]", inside)[0])
    for name in names:
        relative = os.path.relpath(name, base)
        if not any(part.startswith(".") and part != ".." for part in relative.split("/")):
            yield File(escape(relative), fs.unstrip_protocol(name))


def expand_braces(pattern: str) -> list[str]:
    """The names that a shell would make of `x-{000..012}.tar` and `{a,b}.tar`; zero padding is kept."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if numbers:
        first, last = numbers.groups()
        if len(last) > 12 or int(last) - int(first) >= 10_000_000:
            raise ValueError(f"source.path: {found[0]} in {pattern!r} is a range of too many files")
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        choices = found[1].split(",")
    return [
        name
        for choice in choices
        for name in expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])
    ]


def _open(path: str) -> IO[bytes]:
    """Open for reading with seeks. Never waits: only regular files are opened."""
    if is_url(path):
        fs, inside = url_to_fs(path)
        return fs.open(inside, "rb", block_size=1 << 18)
    name = unescape(path)
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise OSError(f"{name!r} is not a regular file")  # a pipe would wait for a writer for ever
    return open(name, "rb")


def _read_local(entry: Entry) -> bytes | Exception:
    try:
        with _open(entry.path) as file:
            if entry.offset is not None:
                file.seek(entry.offset)
            data = file.read(MAX_FILE_BYTES + 1 if entry.size is None else entry.size)
    except OSError as error:
        failure = OSError(f"{entry.uri}: {error.strerror or error}")
        failure.__cause__ = error
        return failure
    return _whole(entry, data)


def _read_remote(wanted: Sequence[Entry]) -> list[bytes | Exception]:
    if not wanted:
        return []
    by_fs: dict[Any, list[int]] = defaultdict(list)
    inside: list[str] = []
    for i, entry in enumerate(wanted):
        fs, path = url_to_fs(entry.path)
        inside.append(path)
        by_fs[fs].append(i)
    answers: dict[int, bytes | Exception] = {}
    for fs, at in by_fs.items():
        starts = [wanted[i].offset for i in at]
        ends = [
            None if start is None else start + (wanted[i].size or 0)
            for i, start in zip(at, starts, strict=True)
        ]
        got = fs.cat_ranges([inside[i] for i in at], starts, ends, on_error="return")
        for i, data in zip(at, got, strict=True):
            entry = wanted[i]
            if isinstance(data, Exception):
                answers[i] = OSError(f"{entry.uri}: {type(data).__name__}: {data}")
            else:
                answers[i] = _whole(entry, bytes(data))
    return [answers[i] for i in range(len(wanted))]


def _whole(entry: Entry, data: bytes) -> bytes | Exception:
    if entry.size is not None and len(data) != entry.size:
        return OSError(f"{entry.uri}: {len(data)} bytes where {entry.size} should be")
    if len(data) > MAX_FILE_BYTES:
        return ValueError(f"{entry.uri}: more than {MAX_FILE_BYTES} bytes: not read")
    return data


# Folder


def _folder_entries(source: FolderSource, ignored: Counter[str]) -> Iterator[Entry]:
    for file in files(source.path):
        if file.error is None and not file.uri.lower().endswith(source.suffixes):
            ignored[suffix_of(file.uri)] += 1
            continue
        yield Entry(file.uri, file.path, dataset=source.dataset, licence=source.licence, error=_named(file))


def _named(file: File) -> str | None:
    return None if file.error is None else f"{file.uri}: {file.error}"


# WebDataset


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar, by name and place; `error` is set on the place where a tar is damaged."""

    name: str
    offset: int
    size: int
    error: str | None = None


def tar_members(file: IO[bytes]) -> Iterator[Member]:
    """The regular members of an uncompressed tar, from their headers, in order; then its damage, if any."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    at = 0
    try:
        tar = tarfile.open(fileobj=file, mode="r:")
        while (member := tar.next()) is not None:
            at = member.offset_data
            if member.isreg() and member.sparse is None:
                cut = member.offset_data + member.size > end
                error = f"the tar ends inside {member.name!r}" if cut else None
                yield Member(member.name, member.offset_data, member.size, error)
                if cut:
                    return
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
        # tarfile takes a damaged header for the end of the archive; the real end is a block of zeros.
        at = tar.offset
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
        if block != bytes(tarfile.BLOCKSIZE):
            yield Member("", at, 0, f"damaged at byte {at}: neither a member nor the end of the tar is there")
        elif file.read(tarfile.RECORDSIZE).strip(b"\0"):
            yield Member(
                "", at, 0, f"there is more after the end of the tar at byte {at}: unpack joined tars"
            )
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        yield Member("", at, 0, f"damaged after byte {at}: {error}")


def split_member(name: str) -> tuple[str, str]:
    """WebDataset's key and extension of a member: the base name is split at its first dot."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


def _tar_entries(source: WebDatasetSource, ignored: Counter[str]) -> Iterator[Entry]:
    for file in files(source.path):
        if file.error is None and suffix_of(file.uri) != ".tar":
            if file.uri.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
                error = "members of a compressed tar cannot be addressed: decompress it to .tar first"
                file = File(file.uri, file.path, error)
            else:
                ignored[suffix_of(file.uri)] += 1
                continue
        yield from _entries_of_tar(source, file, ignored)


def _entries_of_tar(source: WebDatasetSource, file: File, ignored: Counter[str]) -> Iterator[Entry]:
    if file.error is not None:
        yield Entry(file.uri, file.path, dataset=source.dataset, licence=source.licence, error=_named(file))
        return
    names: Counter[str] = Counter()
    try:
        with file.open() as tar:
            members = list(tar_members(tar))
            captions = _captions(tar, members, source.caption)
    except OSError as error:
        members = [Member("", 0, 0, f"{error.strerror or error}")]
        captions = {}
    for member in members:
        name = member.name.lower()
        if member.error is None and not name.endswith(source.suffixes):
            if source.caption is None or not name.endswith("." + source.caption):
                ignored[suffix_of(name)] += 1
            continue
        names[member.name] += 1
        again = "" if names[member.name] == 1 else f"#{names[member.name]}"
        uri = file.uri + (f"#{escape(member.name)}{again}" if member.name else "#")
        yield Entry(
            uri=uri,
            path=file.path,
            offset=member.offset,
            size=member.size,
            caption=captions.get(split_member(member.name)[0]),
            dataset=source.dataset,
            licence=source.licence,
            error=None if member.error is None else f"{uri}: {member.error}",
        )


def _captions(tar: IO[bytes], members: Iterable[Member], extension: str | None) -> dict[str, str]:
    """Caption by WebDataset key. A sidecar that does not parse is no caption; the photograph is still
    good."""
    captions = {}
    for member in members:
        key, own = split_member(member.name)
        if extension is None or own != extension or member.error is not None:
            continue
        tar.seek(member.offset)
        text = tar.read(member.size).decode("utf-8", "replace")
        if extension == "json":
            try:
                parsed = json.loads(text)
            except ValueError:
                continue
            found = parsed.get("caption") if isinstance(parsed, dict) else None
            text = found if isinstance(found, str) else ""
        if text.strip():
            captions[key] = text.strip()
    return captions


# Parquet


def _parquet_entries(source: ParquetSource, ignored: Counter[str]) -> Iterator[Entry]:
    for file in files(source.path):
        if file.error is None and suffix_of(file.uri) != ".parquet":
            ignored[suffix_of(file.uri)] += 1
            continue
        yield from _entries_of_parquet(source, file)


def _entries_of_parquet(source: ParquetSource, file: File) -> Iterator[Entry]:
    try:
        if file.error is not None:
            raise OSError(file.error)
        with file.open() as opened:
            table = pq.ParquetFile(opened)
            check_columns(file, table.schema_arrow, {"image": source.image}, {"caption": source.caption})
            lengths = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
            captions: list[str | None] = [None] * sum(lengths)
            if source.caption is not None:
                captions = table.read(columns=[source.caption]).column(0).to_pylist()
    except (OSError, pa.ArrowException) as error:
        yield Entry(
            file.uri + "#",
            file.path,
            dataset=source.dataset,
            licence=source.licence,
            error=f"{file.uri}: {error}",
        )
        return
    number = 0
    for group, length in enumerate(lengths):
        for row in range(length):
            yield Entry(
                uri=f"{file.uri}#{number}",
                path=file.path,
                row_group=group,
                row=row,
                column=source.image,
                caption=captions[number],
                dataset=source.dataset,
                licence=source.licence,
            )
            number += 1


def check_columns(
    file: File, schema: pa.Schema, images: Mapping[str, str | None], texts: Mapping[str, str | None]
) -> None:
    """ValueError unless the columns that the recipe names (option -> column) hold images and texts."""
    for option, column in {**images, **texts}.items():
        if column is None:
            continue
        there = ", ".join(f"{field.name} ({field.type})" for field in schema)
        if schema.get_field_index(column) < 0:
            raise ValueError(f"source.{option}: {file.uri} has no column {column!r}; it has {there}")
        kind = schema.field(column).type
        wanted = "bytes or struct {bytes, path}" if option in images else "text"
        if not (_holds_image(kind) if option in images else _holds_text(kind)):
            raise ValueError(
                f"source.{option}: column {column!r} of {file.uri} is no {wanted}; it has {there}"
            )


def _holds_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_image(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


class _Cursor:
    """A place in one column of one row group. It only moves forward, so neighbours read in several calls cost
    one decoding in all."""

    def __init__(self, path: str, row_group: int, column: str) -> None:
        self.file = _open(path)
        # Without a buffer size the whole column chunk, often a gigabyte, would be loaded at once.
        table = pq.ParquetFile(self.file, page_checksum_verification=True, buffer_size=1 << 22)
        self.batches = table.iter_batches(batch_size=16, row_groups=[row_group], columns=[column])
        self.start = 0
        self.cells: list[Any] = []

    def cell(self, row: int) -> Any:
        while row >= self.start + len(self.cells):
            self.start += len(self.cells)
            batch = next(self.batches, None)
            if batch is None:
                raise IndexError("it ends before the row")
            self.cells = batch.column(0).to_pylist()
        return self.cells[row - self.start]

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


_cursors: dict[tuple[str, int, str], _Cursor] = {}
CURSORS = 8
"""Places kept open between calls, in each process: the columns of a pair or two."""


def _read_rows(path: str, row_group: int, column: str, rows: Sequence[int]) -> dict[int, bytes | Exception]:
    """The image bytes of these rows, ascending, of one row group."""
    answers: dict[int, bytes | Exception] = {}
    key = (path, row_group, column)
    cursor = _cursors.pop(key, None)  # taken while in use, so that threads do not share one
    try:
        if cursor is None or rows[0] < cursor.start:
            cursor = _Cursor(*key)
        for row in rows:
            answers[row] = image_bytes(path, cursor.cell(row))
    except (OSError, IndexError, pa.ArrowException) as error:
        failed = OSError(f"{path}: row group {row_group} does not read: {error}")
        return {row: answers.get(row, failed) for row in rows}
    _cursors[key] = cursor
    if len(_cursors) > CURSORS:
        _cursors.pop(next(iter(_cursors)), None)
    return answers


def image_bytes(parquet: str, value: bytes | Mapping[str, Any] | None) -> bytes | Exception:
    """The bytes in an image cell; of a struct with only a path, the bytes of that file beside the parquet."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if data is not None:
        return bytes(data)
    name = value.get("path") if isinstance(value, Mapping) else None
    if not name:
        return Null(f"{parquet}: the row's image is null")
    path = beside(folder_of(parquet), name)
    if path is None:
        return ValueError(f"{parquet}: the image path {name!r} leaves the folder of the file that names it")
    entry = Entry(name, path)
    return _read_remote([entry])[0] if is_url(path) else _read_local(entry)


def folder_of(path: str, below: str = ".") -> str:
    """The folder of an entry's file, or one relative to it, as a URL or an unescaped local path."""
    if is_url(path):
        scheme, _, rest = os.path.dirname(path).partition("://")
        return f"{scheme}://{os.path.normpath(f'{rest}/{below}')}"
    return os.path.normpath(os.path.join(os.path.dirname(unescape(path)), below))


def beside(folder: str, name: str) -> str | None:
    """The path of a file that a table names relative to its own folder; None if it would leave that
    folder."""
    if is_url(name) or name.startswith(("/", "~")) or ".." in name.replace("\\", "/").split("/"):
        return None
    if is_url(folder):
        return f"{folder}/{name}"
    path = os.path.realpath(os.path.join(folder, name))
    inside = os.path.commonpath([path, os.path.realpath(folder)]) == os.path.realpath(folder)
    return escape(path) if inside else None
