"""Files of a source: lists them by name, and opens them."""

import glob
import os
import re
import stat
from collections.abc import Iterator
from typing import IO

from crispedit.pipelines.sources.entry import File, Skipped
from crispedit.pipelines.sources.names import escape, unescape
from crispedit.shards import storage

_PATTERN = re.compile(r"[*?\[{]")

READ_AHEAD = 4 << 20
"""Bytes per request to a server while a file is read sequentially."""
LOOK_UP = 256 << 10
"""Bytes per request when only a little of a file is needed."""


def files(path: str, skipped: Skipped) -> list[File]:
    """Every file under a folder, or matching a glob or brace pattern, or the named one; sorted by name. Hidden files
    are counted in `skipped`. ValueError if the place does not exist, or nothing matches."""
    try:
        listed = _remote_files(path, skipped) if storage.is_remote(path) else _local_files(path, skipped)
        return sorted(listed, key=lambda file: file.uri)
    except ValueError as error:
        raise ValueError(f"source.path: {error}") from error
    except Exception as error:
        if not storage.is_remote(path):
            raise
        # Store libraries raise many kinds of errors, such as for a missing bucket or credentials.
        raise ValueError(f"source.path: {path!r} cannot be listed: {type(error).__name__}: {error}") from error


def open_file(path: str, block: int = READ_AHEAD) -> IO[bytes]:
    """Open for reading with seeks; from a server, in blocks of this many bytes, each requested once if read
    sequentially. Only regular files are opened, so it never waits for a writer."""
    if storage.is_remote(path):
        system, inside = storage.filesystem(path)
        return system.open(inside, "rb", block_size=block, cache_type="blockcache", cache_options={"maxblocks": 4})
    name = unescape(path)
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise OSError(f"{name!r} is not a regular file")
    return open(name, "rb")


def exists(path: str) -> bool:
    """Whether a file exists at this path, in the form of `File.path`."""
    return storage.exists(path if storage.is_remote(path) else unescape(path))


def _local_files(path: str, skipped: Skipped) -> Iterator[File]:
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        base, matches = path, [path]
    else:
        matches = storage.expand(path)
        if not any(map(os.path.lexists, matches)):
            raise ValueError(f"there is no {path!r}")
        base = os.path.dirname(path if os.path.lexists(path) else _PATTERN.split(path)[0])
    for match in matches:
        paths = _walk(match, skipped) if os.path.isdir(match) else [(match, None)]
        for name, error in paths:
            yield File(escape(os.path.relpath(name, base)), escape(name), error=error)


def _walk(root: str, skipped: Skipped) -> Iterator[tuple[str, str | None]]:
    """Every path below that is not a folder, and every unreadable folder, with the reason."""
    seen: set[tuple[int, int]] = set()
    # Linked folders come after the real ones, so that a folder keeps its own name.
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
                skipped.add("hidden")
            elif _is_folder(item):
                (links if item.is_symlink() else folders).append(item.path)
            else:
                yield item.path, None
        links.sort(key=os.fsencode, reverse=True)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()  # unlike os.path.isdir, it asks the disk only about links
    except OSError:  # a link to itself
        return False


def _remote_files(path: str, skipped: Skipped) -> Iterator[File]:
    sizes: dict[str, int | None] = {}
    for pattern in storage.expand_braces(path):
        system, inside = storage.filesystem(pattern)
        over_http = pattern.startswith("http")
        if glob.has_magic(inside) and not (over_http and "*" not in inside):  # "?" begins a URL's query
            matches = system.glob(inside, detail=True)
            if not matches and not storage.is_there(system, inside):
                raise storage.no_match(pattern)
            matches = matches or {inside: system.info(inside)}
        elif pattern.endswith("/") if over_http else system.isdir(inside):
            # Over HTTP only a final slash marks a folder: checking would download the file.
            matches = {inside: {"type": "directory"}}
        else:
            matches = {inside: {}}
        for name, info in matches.items():
            is_folder = info.get("type") == "directory"
            within = system.find(name, detail=True) if is_folder else {name: info}
            sizes |= {name: info.get("size") for name, info in within.items()}
    if not any(storage.is_there(system, name) for name in sizes):
        raise ValueError(f"there is no file at {path!r}")
    base = inside.rstrip("/") if is_folder and inside in matches else os.path.dirname(_PATTERN.split(inside)[0])
    for name, size in sizes.items():
        relative = os.path.relpath(name, base)
        if any(part.startswith(".") and part != ".." for part in relative.split("/")):
            skipped.add("hidden")
        else:
            yield File(escape(relative), system.unstrip_protocol(name), size)
