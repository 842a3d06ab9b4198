"""Indexing: finds the photographs in a source's files, reading each file once."""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.outcome import is_transient
from crispedit.pipelines.sources import parquet, texts
from crispedit.pipelines.sources.entry import Entry, File, Skipped
from crispedit.pipelines.sources.files import LOOK_UP, READ_AHEAD, files, open_file
from crispedit.pipelines.sources.names import HEAD, by_head, by_name, escape, suffix_of, unescape
from crispedit.pipelines.sources.place import FolderSource, ParquetSource, PhotoSource, WebDatasetSource
from crispedit.shards import storage, tar

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """A source's content: the entries in order, and counts of other files by kind."""

    entries: list[Entry]
    skipped: Skipped


def entries(source: PhotoSource) -> list[Entry]:
    """The photographs of a source, sorted, listed in this process. ValueError if there are none, or a column has the
    wrong type."""
    return listing(source).entries


def listing(source: PhotoSource) -> Listing:
    """The photographs of a source, and what was skipped. Raises as `entries` does."""
    skipped = Skipped()
    of_kind = fitting(source, files(source.path, skipped), skipped)
    groups = [of_kind] if isinstance(source, FolderSource) else [[file] for file in of_kind]
    entries = [entry for group in groups for entry in photographs(source, group, skipped, patient=False)]
    if not entries:
        raise ValueError(nothing(source.path, source.kind, skipped))
    return Listing(entries, skipped)


def nothing(path: str, kind: str, skipped: Skipped) -> str:
    """The message for a source without photographs or pairs."""
    what = "pairs" if kind.startswith("pairs") else "photographs"
    return f"source.path: no {what} in {path!r} for kind {kind!r} ({skipped.text() or 'there are no files'})"


def fitting(source: PhotoSource, files: Sequence[File], skipped: Skipped) -> list[File]:
    """The files that this kind of source reads, judged by name; others are counted."""
    if isinstance(source, FolderSource):
        return list(files)
    suffix = ".tar" if isinstance(source, WebDatasetSource) else ".parquet"
    return [file for file in files if is_container(file, suffix, skipped)]


def is_container(file: File, suffix: str, skipped: Skipped) -> bool:
    """Whether a file has this suffix; others are counted. Compressed tars count as tars, and become errors."""
    name = file.uri.lower()
    whole = file.error is not None or suffix_of(name) == suffix
    if whole or (suffix == ".tar" and name.endswith(tar.COMPRESSED)):
        return True
    skipped.file(file.uri)
    return False


def photographs(
    source: PhotoSource, group: Sequence[File], skipped: Skipped, patient: bool = True, folder_of_run: str | None = None
) -> Iterator[Entry]:
    """The photographs in some files of a folder, or in one tar or parquet. Huge row groups are split into
    `folder_of_run`, if given.

    An unreadable file is an entry with the error; but if `patient`, a transient error is raised, so that the caller can
    try again. ValueError if a column has the wrong type.
    """
    if isinstance(source, FolderSource):
        return _in_folder(source, group, skipped)
    (file,) = group

    def members(opened: IO[bytes]) -> Iterator[Entry]:
        if isinstance(source, WebDatasetSource):
            return _in_tar(source, file, opened, skipped)
        return _in_parquet(source, file, pq.ParquetFile(opened), folder_of_run)

    block = READ_AHEAD if source.kind == "webdataset" else LOOK_UP
    return read_once(file, block, members, lambda uri, error: _entry(source, uri, file.path, error=error), patient)


def read_once(
    file: File, block: int, members: Callable[[IO[bytes]], Iterable[T]], failed: Callable[[str, str], T], patient: bool
) -> Iterator[T]:
    """The members of a file that is opened with blocks of this many bytes, or `failed(uri, error)` if it cannot be
    read; but if `patient`, a transient error is raised."""
    try:
        if file.error is not None:
            raise OSError(file.error)
        if file.uri.lower().endswith(tar.COMPRESSED):
            raise OSError("members of a compressed tar cannot be addressed: decompress it to .tar first")
        with open_file(file.path, block) as opened:
            yield from members(opened)
    except (OSError, pa.ArrowException) as error:
        if patient and is_transient(error):
            raise
        reason = getattr(error, "strerror", None) or error
        yield failed(f"{file.uri}#", f"{file.uri}: {reason}")


def _entry(source: PhotoSource, uri: str, path: str, **parts: Any) -> Entry:
    return Entry(uri, path, dataset=source.dataset, licence=source.licence, **parts)


# Files of a folder


def _in_folder(source: FolderSource, files: Sequence[File], skipped: Skipped) -> Iterator[Entry]:
    """The photographs among these files, in order. Files with no suffix or an unknown one are opened to check.

    A file that cannot be opened is an entry with the error.
    """
    known = {file.uri: True if file.error is not None else by_name(file.uri, source.suffixes) for file in files}
    heads = _heads([file for file in files if known[file.uri] is None], skipped)
    for file in files:
        head = heads.get(file.uri, b"")
        if head is None:
            continue
        if isinstance(head, Exception):
            file = replace(file, error=str(head))
        elif not (by_head(head) if known[file.uri] is None else known[file.uri]):
            skipped.file(file.uri)
            continue
        error = None if file.error is None else f"{file.uri}: {file.error}"
        yield _entry(source, file.uri, file.path, size=file.size, error=error)


def _heads(files: Sequence[File], skipped: Skipped) -> dict[str, bytes | Exception | None]:
    """The first bytes of each file, or why it cannot be opened; None for non-files, which are counted."""
    if not files:
        return {}
    if storage.is_remote(files[0].path):
        system, _ = storage.filesystem(files[0].path)
        inside = [system._strip_protocol(file.path) for file in files]
        heads = system.cat_ranges(inside, [0] * len(files), [HEAD] * len(files), on_error="return")
        return {file.uri: head for file, head in zip(files, heads, strict=True)}
    return {file.uri: _head(file, skipped) for file in files}


def _head(file: File, skipped: Skipped) -> bytes | Exception | None:
    name = unescape(file.path)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # a pipe would wait forever for a writer
            skipped.add("pipe or device")
            return None
        with open(name, "rb") as opened:
            return opened.read(HEAD)
    except OSError as error:
        return OSError(error.strerror or str(error))


# Members of a tar


WINDOW = 5000
"""Photographs that may wait for a later caption; WebDataset stores both side by side."""
MOST_CAPTION_BYTES = 1 << 20


def _in_tar(source: WebDatasetSource, file: File, opened: IO[bytes], skipped: Skipped) -> Iterator[Entry]:
    """The photographs of a tar, in order; damage is an entry with the error."""
    window = _Window(skipped)
    names: Counter[int] = Counter()
    for member in tar.members(opened):
        if any(part.startswith(".") and part.strip(".") for part in member.name.split("/")):
            skipped.add("hidden")  # such as the "._1.jpg" that macOS puts beside each file
            continue
        extension = None if source.caption is None else "." + source.caption
        if member.error is None and extension is not None and member.name.lower().endswith(extension):
            window.caption(member.name[: -len(extension)], _caption(opened, member, source.caption, skipped))
            continue
        if not _is_photograph(opened, member, source.suffixes):
            skipped.add(member.other) if member.other else skipped.file(member.name)
            continue
        names[hash(member.name)] += 1
        count = names[hash(member.name)]
        uri = f"{file.uri}#{escape(member.name)}" + (f"#{count}" if count > 1 else "")
        error = None if member.error is None else f"{uri}: {member.error}"
        entry = _entry(source, uri, file.path, offset=member.offset, size=member.size, error=error)
        yield from window.photograph(member.name, entry)
    yield from window.flush()
    window.forget()


def _is_photograph(opened: IO[bytes], member: tar.Member, suffixes: tuple[str, ...] | None) -> bool:
    if member.other is not None:
        return False
    known = by_name(member.name, suffixes)
    if known is None and member.error is None:
        return by_head(member.read(opened, HEAD))
    return member.damage or known is not False  # an unreadable member may have been one


def _caption(opened: IO[bytes], member: tar.Member, extension: str | None, skipped: Skipped) -> str | None:
    """A sidecar's text; None if it does not parse, which leaves the photograph without a caption."""
    if member.size > MOST_CAPTION_BYTES:
        skipped.add("caption longer than 1 MB")
        return None
    data = member.read(opened)
    return texts.of_json(data, "caption") if extension == "json" else texts.decode(data, "replace") or None


@dataclass
class _Window:
    """Photographs and captions by name without extension, until both are present."""

    skipped: Skipped
    waiting: list[tuple[str, Entry]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)

    def caption(self, stem: str, text: str | None) -> None:
        if text is not None:
            self.captions[stem] = text
            if len(self.captions) > 2 * WINDOW:
                self.forget()

    def photograph(self, name: str, entry: Entry) -> Iterator[Entry]:
        if len(self.waiting) >= WINDOW and _stems(name)[-1] != _stems(self.waiting[-1][0])[-1]:
            yield from self.flush()
        self.waiting.append((name, entry))

    def flush(self) -> Iterator[Entry]:
        used = set()
        for name, entry in self.waiting:
            stem = next((stem for stem in _stems(name) if stem in self.captions), None)
            used.add(stem)
            yield entry if stem is None else replace(entry, caption=self.captions[stem])
        self.waiting.clear()
        for stem in used:
            self.captions.pop(stem or "", None)

    def forget(self) -> None:
        if self.captions:
            self.skipped.add("caption without its photograph", len(self.captions))
        self.captions.clear()


def _stems(name: str) -> list[str]:
    """A name without its extension, at every dot of its base name: the longest first, WebDataset's key last."""
    folder, base = posixpath.split(name)
    parts = base.split(".")
    return [posixpath.join(folder, ".".join(parts[:count])) for count in range(max(1, len(parts) - 1), 0, -1)]


# Rows of a parquet


def _in_parquet(source: ParquetSource, file: File, table: pq.ParquetFile, folder: str | None = None) -> Iterator[Entry]:
    """The rows of a parquet, in order; huge row groups are split into `folder`, if given. ValueError if a column has
    the wrong type."""
    images, captions = {"image": source.image}, {"caption": source.caption}
    parquet.check_columns("source", file.uri, table.schema_arrow, images, captions, {})
    columns = [] if source.caption is None else [source.caption]
    for uri, places, row in parquet.rows(file, table, images, columns, folder):
        caption = texts.clean(row.get(source.caption or "") or "") or None
        yield Entry(uri, **places["image"], caption=caption, dataset=source.dataset, licence=source.licence)
