"""Reading: the bytes of entries, local or remote."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crispedit.pipelines.sources import parquet
from crispedit.pipelines.sources.entry import Entry
from crispedit.pipelines.sources.files import open_file
from crispedit.pipelines.sources.names import escape
from crispedit.shards import storage

MAX_FILE_BYTES = 1 << 30
"""Larger files are not read: they would exhaust the node's memory before the decoder could refuse them."""


def read(wanted: Sequence[Entry], root: str | None = None) -> list[bytes | Exception]:
    """The bytes of each entry, in order, or an exception, whose cause shows whether it is transient
    (`crispedit.outcome.is_transient`).

    `root` is the run that entries with relative paths belong to. A parquet row group is decoded once if calls move
    forward; remote files are fetched concurrently. All results are held in memory, so the caller chooses the number of
    entries.
    """
    answers: dict[int, bytes | Exception] = {}
    rows: defaultdict[tuple[str, int, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    files: dict[int, Entry] = {}
    for i, entry in enumerate(wanted):
        if entry.error is not None:
            answers[i] = ValueError(entry.error)
        elif entry.row_group is not None and entry.row is not None and entry.column is not None:
            rows[entry.path, entry.row_group, entry.column][entry.row].append(i)
        else:
            files[i] = _in_run(entry, root)
    for (path, row_group, column), at in rows.items():
        for row, cell in parquet.cells(path, row_group, column, sorted(at)).items():
            for i in at[row]:
                if isinstance(cell, str):
                    files[i] = Entry(f"{wanted[i].uri}, {os.path.basename(cell)}", cell)
                else:
                    answers[i] = cell
    for i, entry in files.items():
        if entry.size is not None and entry.size > MAX_FILE_BYTES:
            answers[i] = _too_large(entry, entry.size)
        elif not storage.is_remote(entry.path):
            answers[i] = _local(entry)
    answers.update(_remote({i: entry for i, entry in files.items() if i not in answers}))
    return [answers[i] for i in range(len(wanted))]


def _in_run(entry: Entry, root: str | None) -> Entry:
    if storage.is_remote(entry.path) or entry.path.startswith("/"):
        return entry
    if root is None:
        raise ValueError(f"{entry.uri}: lies in a run, at {entry.path}, and no run was given")
    return replace(entry, path=storage.join(root if storage.is_remote(root) else escape(root), entry.path))


def _local(entry: Entry) -> bytes | Exception:
    try:
        with open_file(entry.path) as file:
            if entry.offset is not None:
                file.seek(entry.offset)
            data = file.read(MAX_FILE_BYTES + 1 if entry.size is None else entry.size)
    except (OSError, ValueError) as error:  # a name that holds a zero byte is a ValueError
        return _failed(entry, error)
    return _whole(entry, data)


def _remote(wanted: Mapping[int, Entry]) -> Iterator[tuple[int, bytes | Exception]]:
    by_system: dict[Any, dict[int, str]] = defaultdict(dict)
    for i, entry in wanted.items():
        system, inside = storage.filesystem(entry.path)
        by_system[system][i] = inside
    for system, places in by_system.items():
        entries = [wanted[i] for i in places]
        starts = [entry.offset for entry in entries]
        ends = [None if entry.offset is None else entry.offset + (entry.size or 0) for entry in entries]
        contents = system.cat_ranges(list(places.values()), starts, ends, on_error="return")
        for i, entry, data in zip(places, entries, contents, strict=True):
            whole = isinstance(data, bytes | bytearray | memoryview)
            yield i, _whole(entry, bytes(data)) if whole else _failed(entry, data)


def _whole(entry: Entry, data: bytes) -> bytes | Exception:
    if entry.size is not None and len(data) != entry.size:
        cut = ConnectionError("the answer was cut short")  # or the file itself was: reading it again will tell
        return _failed(entry, cut, f"{len(data)} bytes where {entry.size} should be")
    return _too_large(entry, len(data)) if len(data) > MAX_FILE_BYTES else data


def _too_large(entry: Entry, size: int) -> ValueError:
    return ValueError(f"{entry.uri}: {size} bytes is more than {MAX_FILE_BYTES}: not read")


def _failed(entry: Entry, error: Exception, why: str | None = None) -> OSError:
    strerror = error.strerror if isinstance(error, OSError) else None
    failed = OSError(f"{entry.uri}: {why or strerror or f'{type(error).__name__}: {error}'}")
    failed.__cause__ = error
    return failed
