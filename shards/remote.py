"""Where shards lie: paths, globs, braces and URLs, and the bounded local cache through which remote shards
are read.

Anything that fsspec opens (s3://, gs://, https://, hf://, ...) is fetched whole, once, into the cache; the
shards used longest ago make room. Credentials and endpoints are fsspec's own configuration.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fsspec

from crispedit.record import content_key
from crispedit.shards.lock import locked

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_remote(path: str) -> bool:
    return bool(_SCHEME.match(path))


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def split(path: str) -> tuple[str, str]:
    """(folder, name) of a path or URL."""
    folder, _, name = path.rpartition("/")
    return folder or ("/" if path.startswith("/") else "."), name


def expand(pattern: str) -> list[str]:
    """The paths that a path, glob or brace pattern names, sorted within a glob.

    Braces are lists {a,b} and ranges {000..117}, which keep their zeros. ValueError for a glob without a
    match.
    """
    found = []
    for path in _expand_braces(pattern):
        if not glob.has_magic(path) or (not is_remote(path) and os.path.exists(path)):
            found.append(path)
            continue
        if is_remote(path):
            system, inner = fsspec.core.url_to_fs(path)
            matches = sorted(system.unstrip_protocol(match) for match in system.glob(inner))
        else:
            matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise ValueError(f"{path}: nothing matches this pattern")
        found += matches
    return found


def _expand_braces(pattern: str) -> list[str]:
    choices = []
    texts = _BRACES.split(pattern)
    for place, text in enumerate(texts):
        if place % 2 == 0:
            choices.append([text])
        elif bounds := _RANGE.fullmatch(text):
            first, last = bounds.groups()
            width = len(first) if first.startswith("0") else 0
            choices.append([f"{number:0{width}d}" for number in range(int(first), int(last) + 1)])
        else:
            choices.append(text.split(","))
    return ["".join(parts) for parts in itertools.product(*choices)]


def exists(path: str) -> bool:
    if is_remote(path):
        system, inner = fsspec.core.url_to_fs(path)
        return bool(system.exists(inner))
    return os.path.exists(path)


def names(folder: str, ending: str) -> set[str]:
    """The names in a folder that end so; empty where a server does not list its folders."""
    if is_remote(folder):
        system, inner = fsspec.core.url_to_fs(folder)
        try:
            found = [split(str(path))[1] for path in system.ls(inner, detail=False)]
        except (OSError, NotImplementedError):
            return set()
    else:
        found = os.listdir(folder)
    return {name for name in found if name.endswith(ending) and not name.startswith(".")}


def read_bytes(path: str) -> bytes:
    """The bytes of a small file, such as a manifest. FileNotFoundError if there is none."""
    if is_remote(path):
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    return Path(path).read_bytes()


@dataclass(frozen=True)
class Cache:
    """A folder of whole remote shards, at most `max_bytes` of them beside the one being fetched.

    Any number of processes may share it: a file appears by rename, one process fetches what several want, and
    a shard that is removed while another process reads it stays readable there until that process closes it.
    """

    folder: Path = field(
        default_factory=lambda: (
            Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crispedit" / "shards"
        )
    )
    max_bytes: int = 20 * 2**30

    def local(self, path: str, size: int | None = None, version: str = "") -> Path:
        """A local file with the bytes of this path; fetched if need be. OSError if it cannot be had whole.

        `version` tells apart what has lain under one path at different times: a hash of the content, if it is
        known.
        """
        if not is_remote(path):
            return Path(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        cached = self.folder / f"{content_key(path, version)}-{split(path)[1]}"
        with locked(self.folder / f".{cached.name}.lock"):
            if not cached.exists():
                self._fetch(path, size, cached)
            os.utime(cached)
        return cached

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A file of the cache that one process makes, with all its bytes, and the others find."""
        self.folder.mkdir(parents=True, exist_ok=True)
        cached = self.folder / name
        with locked(self.folder / f".{name}.lock"):
            if not cached.exists():
                temporary = cached.with_name(f".{name}.tmp")
                make(temporary)
                self._make_room(temporary.stat().st_size)
                os.replace(temporary, cached)
            os.utime(cached)
        return cached

    def _fetch(self, path: str, size: int | None, cached: Path) -> None:
        temporary = cached.with_name(f".{cached.name}.tmp")
        with fsspec.open(path, "rb") as remote, open(temporary, "wb") as file:
            shutil.copyfileobj(remote, file, 1 << 20)
        got = temporary.stat().st_size
        if size is not None and got != size:
            temporary.unlink()
            raise OSError(f"{path}: {got} bytes came, {size} were expected")
        self._make_room(got)
        os.replace(temporary, cached)

    def _make_room(self, size: int) -> None:
        with locked(self.folder / ".room.lock"):
            # "." files are locks and files still being fetched.
            files = [(p.stat(), p) for p in self.folder.iterdir() if not p.name.startswith(".")]
            used = sum(stat.st_size for stat, _ in files)
            for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
                if used + size <= self.max_bytes:
                    break
                path.unlink(missing_ok=True)
                used -= stat.st_size
