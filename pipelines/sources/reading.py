"""Reading: the bytes of entries, local or remote."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
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
    at_servers = [i for i in files if i not in answers]
    answers.update(zip(at_servers, _remote([files[i] for i in at_servers]), strict=True))
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


def _remote(wanted: Sequence[Entry]) -> list[bytes | Exception]:
    by_system: dict[Any, list[int]] = defaultdict(list)
    inside: list[str] = []
    for i, entry in enumerate(wanted):
        system, path = storage.filesystem(entry.path)
        inside.append(path)
        by_system[system].append(i)
    answers: dict[int, bytes | Exception] = {}
    for system, at in by_system.items():
        starts = [wanted[i].offset for i in at]
        ends = [None if start is None else start + (wanted[i].size or 0) for i, start in zip(at, starts, strict=True)]
        contents = system.cat_ranges([inside[i] for i in at], starts, ends, on_error="return")
        for i, data in zip(at, contents, strict=True):
            whole = isinstance(data, bytes | bytearray | memoryview)
            answers[i] = _whole(wanted[i], bytes(data)) if whole else _failed(wanted[i], data)
    return [answers[i] for i in range(len(wanted))]


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
