"""Indexing: finds the photographs in a source's files, reading each file once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.outcome import is_transient
from crispedit.pipelines.sources import folder, parquet, tar, webdataset
from crispedit.pipelines.sources.entry import Entry
from crispedit.pipelines.sources.files import LOOK_UP, READ_AHEAD, File, files, open_file
from crispedit.pipelines.sources.kinds import Skipped
from crispedit.pipelines.sources.names import suffix_of
from crispedit.pipelines.sources.place import FolderSource, ParquetSource, WebDatasetSource

PhotoSource = FolderSource | WebDatasetSource | ParquetSource


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
        yield from folder.photographs(source, group, skipped)
        return
    (file,) = group
    try:
        check(file)
        in_tar = isinstance(source, WebDatasetSource)
        with open_file(file.path, READ_AHEAD if in_tar else LOOK_UP) as opened:
            if isinstance(source, WebDatasetSource):
                yield from webdataset.photographs(source, file, opened, skipped)
            else:
                yield from parquet.photographs(source, file, pq.ParquetFile(opened), folder_of_run)
    except (OSError, pa.ArrowException) as error:
        if patient and is_transient(error):
            raise
        reason = getattr(error, "strerror", None) or error
        yield Entry(
            file.uri + "#", file.path, dataset=source.dataset, licence=source.licence, error=f"{file.uri}: {reason}"
        )


def check(file: File) -> None:
    """OSError if the file's name shows that it cannot be read."""
    if file.error is not None:
        raise OSError(file.error)
    if file.uri.lower().endswith(tar.COMPRESSED):
        raise OSError("members of a compressed tar cannot be addressed: decompress it to .tar first")
