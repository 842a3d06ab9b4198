"""The bounded local cache through which remote shards are read.

A shard is fetched whole, once; the shards used longest ago make room.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crispedit.record import content_key
from crispedit.shards import storage
from crispedit.shards.lock import locked


@dataclass(frozen=True)
class Cache:
    """A folder of whole remote shards, at most `max_bytes` of them beside the one being fetched.

    Any number of processes may share it: a file appears by rename, one process fetches what several want, and
    a shard that is removed while another process reads it stays readable there until that process closes it.
    """

    folder: Path = field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crispedit" / "shards"
    )
    max_bytes: int = 20 * 2**30

    def local(self, path: str, size: int | None = None, version: str = "") -> Path:
        """A local file with the bytes of this path; fetched if need be. OSError if it cannot be had whole.

        `version` tells apart what has lain under one path at different times: a hash of the content, if it is known.
        """
        if not storage.is_remote(path):
            return Path(path)

        def fetch(temporary: Path) -> None:
            system, inner = storage.filesystem(path)
            with system.open(inner, "rb") as remote, open(temporary, "wb") as file:
                shutil.copyfileobj(remote, file, 1 << 20)
            if size is not None and (got := temporary.stat().st_size) != size:
                raise OSError(f"{path}: {got} bytes came, {size} were expected")

        return self.made(f"{content_key(path, version)}-{storage.split(path)[1]}", fetch)

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A file of the cache that one process makes and the others use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        cached = self.folder / name
        with locked(self.folder / f".{name}.lock"):
            if not cached.exists():
                temporary = cached.with_name(f".{name}.tmp")
                try:
                    make(temporary)
                    self._make_room(temporary.stat().st_size)
                    os.replace(temporary, cached)
                finally:
                    temporary.unlink(missing_ok=True)
            os.utime(cached)
        return cached

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
