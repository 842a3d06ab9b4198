"""Photographs in a folder: whole files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace

from crispedit.pipelines.sources import kinds
from crispedit.pipelines.sources.entry import Entry
from crispedit.pipelines.sources.files import File
from crispedit.pipelines.sources.kinds import Skipped
from crispedit.pipelines.sources.names import unescape
from crispedit.pipelines.sources.place import FolderSource
from crispedit.shards import storage


def photographs(source: FolderSource, files: Sequence[File], skipped: Skipped) -> Iterator[Entry]:
    """The photographs among these files, in order. Files with no suffix or an unknown one are opened to check.

    A file that cannot be opened is an entry with the error.
    """
    known = {file.uri: True if file.error is not None else kinds.by_name(file.uri, source.suffixes) for file in files}
    heads = _heads([file for file in files if known[file.uri] is None], skipped)
    for file in files:
        if (is_one := known[file.uri]) is None:
            if (head := heads[file.uri]) is None:
                continue
            if isinstance(head, Exception):
                file = replace(file, error=str(head))
            elif not kinds.by_head(head):
                skipped.file(file.uri)
                continue
        elif not is_one:
            skipped.file(file.uri)
            continue
        error = None if file.error is None else f"{file.uri}: {file.error}"
        yield Entry(file.uri, file.path, size=file.size, dataset=source.dataset, licence=source.licence, error=error)


def _heads(files: Sequence[File], skipped: Skipped) -> dict[str, bytes | Exception | None]:
    """The first bytes of each file, or why it cannot be opened; None for non-files, which are counted."""
    if not files:
        return {}
    if storage.is_remote(files[0].path):
        system, _ = storage.filesystem(files[0].path)
        inside = [system._strip_protocol(file.path) for file in files]
        heads = system.cat_ranges(inside, [0] * len(files), [kinds.HEAD] * len(files), on_error="return")
        return {file.uri: head for file, head in zip(files, heads, strict=True)}
    return {file.uri: _head(file, skipped) for file in files}


def _head(file: File, skipped: Skipped) -> bytes | Exception | None:
    name = unescape(file.path)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # a pipe would wait forever for a writer
            skipped.add("pipe or device")
            return None
        with open(name, "rb") as opened:
            return opened.read(kinds.HEAD)
    except OSError as error:
        return OSError(error.strerror or str(error))
