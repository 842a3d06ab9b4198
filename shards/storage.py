"""Storage: files by their place, a local path or any URL that fsspec knows (s3://, gs://, https://, memory://, ...).

Credentials and endpoints are fsspec's own configuration, never part of a place.
"""

import glob
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from braceexpand import braceexpand

from crispedit.shards import layout

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(://|::)")

_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})[.\d-]*\}")

MOST_EXPANDED = 10_000_000
"""Names that a brace pattern may stand for."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Our extra that brings the package of a scheme."""


def is_remote(path: str) -> bool:
    """Whether fsspec reads it."""
    return bool(_SCHEME.match(path))


def absolute(path: str) -> str:
    """The path for processes with another working directory."""
    return path if is_remote(path) else os.path.abspath(path)


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Whether Ray removes it: it lies in `ray job submit --working-dir`'s copy of the working directory."""
    return not is_remote(os.fspath(path)) and "working_dir_files" in Path(path).absolute().parts


def check_lasts(option: str, path: str | os.PathLike[str]) -> None:
    """ValueError if an output would be written to a place that Ray removes."""
    if is_temporary(path):
        raise ValueError(
            f"{option}: {path} would be in Ray's temporary copy of the working directory, which Ray removes: "
            "give an absolute path that all nodes share"
        )


def filesystem(path: str) -> tuple[Any, str]:
    """(fsspec's file system of a URL, the path inside it). ValueError if its package is not installed, or there is no
    such scheme."""
    try:
        system, inside = fsspec.core.url_to_fs(path)
    except ImportError as error:
        scheme = path.split("::")[0].split("://")[0]
        remedy = f"pip install 'crispedit[{EXTRAS[scheme]}]'" if scheme in EXTRAS else str(error)
        raise ValueError(f"{path}: a package is missing that reads {scheme}://: {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return system, inside


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def split(path: str) -> tuple[str, str]:
    """(folder, name) of a path or URL."""
    folder, _, name = path.rpartition("/")
    return folder or ("/" if path.startswith("/") else "."), name


def expand_braces(pattern: str) -> list[str]:
    """The names that a shell would make of `x-{000..012}.tar` and `{a,b}.tar`; zero padding is kept. ValueError if they
    are too many."""
    ranges = [abs(int(last) - int(first)) + 1 for first, last in _RANGE.findall(pattern)]
    if math.prod(ranges) > MOST_EXPANDED:
        raise ValueError(f"{pattern}: these braces stand for too many files, more than {MOST_EXPANDED}")
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError:  # braces that do not close are no pattern
        return [pattern]


def expand(pattern: str) -> list[str]:
    """The paths that a path, glob or brace pattern names, sorted within a glob. A path that exists literally is
    itself, with its brackets and braces. ValueError for a glob that matches nothing."""
    if not is_remote(pattern) and os.path.lexists(pattern):
        return [pattern]
    folder, rest = ("", pattern) if is_remote(pattern) else _literal_folder(pattern)
    return [path for one in expand_braces(rest) for path in _matches(folder, one)]


def _matches(folder: str, pattern: str) -> list[str]:
    whole = folder + pattern
    if not glob.has_magic(pattern):
        return [whole]
    if is_remote(whole):
        system, inner = filesystem(whole)
        matches = [system.unstrip_protocol(match) for match in system.glob(inner)]
        if not matches and is_there(system, inner):
            return [whole]
    else:
        matches = glob.glob(glob.escape(folder) + pattern, recursive=True)
    if not matches:
        raise no_match(whole)
    return sorted(matches)


def _literal_folder(pattern: str) -> tuple[str, str]:
    """The folders at the start of a pattern that are there under their very names, such as "photos [raw]/", and the
    rest."""
    parts = pattern.split("/")
    for count in range(len(parts) - 1, 0, -1):
        if os.path.isdir(folder := "/".join(parts[:count]) + "/"):
            return folder, "/".join(parts[count:])
    return "", pattern


def no_match(pattern: str) -> ValueError:
    """The error for a pattern that matches nothing. Its brackets may have been meant literally."""
    hint = ""
    if (bracketed := re.search(r"\[[^\]]+\]", pattern)) is not None:
        literal = bracketed[0].replace("[", "[[]", 1)
        hint = f" ({bracketed[0]} stands for one of these characters; write {literal} for the brackets themselves)"
    return ValueError(f"{pattern}: nothing matches this pattern{hint}")


def exists(path: str) -> bool:
    return is_there(*filesystem(path)) if is_remote(path) else os.path.exists(path)


def is_there(system: Any, inner: str) -> bool:
    """Whether fsspec's file system has this path. Unlike its own `exists`, never begins to download it."""
    try:
        system.info(inner)
    except FileNotFoundError:
        return False
    return True


def names(folder: str, ending: str) -> set[str]:
    """The names in a folder that end so; empty where there is no such folder or a server does not list it."""
    try:
        if is_remote(folder):
            system, inner = filesystem(folder)
            system.invalidate_cache(inner)
            paths = [split(str(path))[1] for path in system.ls(inner, detail=False)]
        else:
            paths = os.listdir(folder)
    except (OSError, NotImplementedError) as error:
        if is_remote(folder) or isinstance(error, FileNotFoundError | NotADirectoryError):
            return set()
        raise
    return {name for name in paths if name.endswith(ending) and not name.startswith(".")}


def size(path: str) -> int | None:
    """Bytes of a file; None if there is none."""
    try:
        if is_remote(path):
            system, inner = filesystem(path)
            system.invalidate_cache(split(inner)[0])
            return int(system.size(inner))
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def read_bytes(path: str) -> bytes:
    """The bytes of a small file, such as a manifest. FileNotFoundError if there is none."""
    if is_remote(path):
        system, inner = filesystem(path)
        return bytes(system.cat_file(inner))
    return Path(path).read_bytes()


def table(data: bytes, dictionary: Sequence[str] = ()) -> pa.Table:
    """The table in the bytes of a parquet file; the columns of `dictionary` as dictionaries.

    Read by this thread alone: one of Arrow's that lets go of Python's bytes while the interpreter ends aborts it.
    """
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(dictionary)).read(use_threads=False)


def remove(path: str) -> None:
    """Remove a file, durably, if it is there."""
    if not is_remote(path):
        if os.path.lexists(path):
            os.unlink(path)
            layout.sync_folder(Path(path).parent)
        return
    system, inner = filesystem(path)
    try:
        system.rm_file(inner)
    except FileNotFoundError:
        return
    system.invalidate_cache(split(inner)[0])


def upload(local: str, path: str) -> None:
    """Put a local file in a store, whole: readers see the old object or the new one. OSError if it did not arrive."""
    system, inner = filesystem(path)
    try:
        system.put_file(local, inner)
    except FileNotFoundError:  # a file system that has folders, and not this one yet
        system.makedirs(split(inner)[0], exist_ok=True)
        system.put_file(local, inner)
    system.invalidate_cache(split(inner)[0])
    if (there := size(path)) != (here := os.path.getsize(local)):
        raise OSError(f"{path}: {there} bytes arrived of {here}")


@contextmanager
def replaced(path: str) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole: on a disk by a temporary name, fsync and rename; in a
    store by one upload of what was written to a temporary file here. If the block raises, nothing appears."""
    if is_remote(path):
        with tempfile.NamedTemporaryFile(prefix="crispedit-") as out:
            yield out  # type: ignore[misc]  # a wrapper that is a file in all but its class
            out.flush()
            upload(out.name, path)
        return
    with layout.replaced(Path(path)) as out:
        yield out


def is_empty(folder: str) -> bool:
    """Whether a place is empty: nothing is there, or an empty folder."""
    if not is_remote(folder):
        return not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder))
    system, inner = filesystem(folder)
    try:
        system.invalidate_cache(inner)
        return not system.find(inner, maxdepth=2)
    except FileNotFoundError:
        return True


@contextmanager
def replaced_folder(folder: str) -> Iterator[Path]:
    """A new folder that appears when it is whole: on a disk by a rename. In a store its files appear one by one, and
    those that have are removed again if one fails."""
    if not is_remote(folder):
        final = Path(folder)
        temporary = layout.temporary(final)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if final.exists():
                final.rmdir()
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return
    with tempfile.TemporaryDirectory(prefix="crispedit-") as here:
        yield Path(here)
        sent = []
        try:
            for path in sorted(Path(here).rglob("*")):
                if path.is_file():
                    sent.append(join(folder, path.relative_to(here).as_posix()))
                    upload(str(path), sent[-1])
        except BaseException:
            for path_there in sent:
                remove(path_there)
            raise
