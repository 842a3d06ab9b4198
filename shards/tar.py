"""Tars: lists the members in one pass, also of damaged and hostile ones, and writes members that depend on no clock."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

MOST_METADATA = 1 << 20
"""Largest headers of one member, in bytes (names, times, attributes). More is an attack or damage."""
MOST_MEMBERS = 2_000_000
"""Most members of one tar: all their positions are held in memory, to resolve links."""

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar: its name and position. `error` says why it has no bytes, or what is wrong with the tar
    there."""

    name: str
    offset: int
    size: int
    error: str | None = None
    other: str | None = None
    """Its kind, if it is not a file: "device"."""
    damage: bool = False
    """Whether the tar itself is damaged there; the member may then have no name."""

    def read(self, file: IO[bytes], most: int | None = None) -> bytes:
        """Its bytes, or the first of them."""
        file.seek(self.offset)
        return file.read(self.size if most is None else min(most, self.size))


def members(file: IO[bytes]) -> Iterator[Member]:
    """The members of an uncompressed tar except folders, in order, with links resolved; then its damage, if any. The
    caller may seek in the file between two members.

    Links to later members come at the end. Raises OSError if the file cannot be read.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    guarded = _Headers(file)
    places: dict[str, tuple[int, int]] = {}
    waiting: list[tuple[str, str]] = []
    at = 0
    try:
        tar = tarfile.open(fileobj=guarded, mode="r:")
        for count, member in enumerate(iter(lambda: _next(tar, guarded), None), 1):
            at = member.offset_data
            if count > MOST_MEMBERS:
                yield _damage(at, f"more than {MOST_MEMBERS} members: the rest is not read; split the tar")
                break
            if member.issym() or member.islnk():
                beside = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
                target = member.linkname if member.islnk() else beside
                if (place := places.get(target)) is not None:
                    places[member.name] = place
                    yield Member(member.name, *place)
                else:
                    waiting.append((member.name, target))
            elif member.isreg():
                entry = _file(member, end)
                if entry.error is None:
                    places[member.name] = entry.offset, entry.size
                yield entry
                if entry.damage:
                    break
            elif not member.isdir():
                yield Member(member.name, at, 0, other="device" if member.isdev() else "of another kind")
        else:
            yield from _ending(file, tar.offset)
    except (tarfile.TarError, ValueError, EOFError, RecursionError, MemoryError, OverflowError) as error:
        yield _damage(at, f"damaged after byte {at}: {error}")
    yield from _resolved(waiting, places)


def _next(tar: tarfile.TarFile, guarded: _Headers) -> tarfile.TarInfo | None:
    guarded.left = MOST_METADATA
    if sum(map(len, tar.pax_headers.values())) > MOST_METADATA:
        raise tarfile.ReadError("its global headers are too long")
    member = tar.next()
    tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header
    return member


def _file(member: tarfile.TarInfo, end: int) -> Member:
    name, offset, size = member.name, member.offset_data, member.size
    pieces: Any = member.sparse  # of (offset, size), whatever its stubs say
    if pieces is not None and [(start, length) for start, length in pieces if length] != [(0, size)]:
        return Member(name, offset, size, f"{name!r} is stored with holes: pack it again without tar's --sparse")
    is_cut = offset + size > end
    return Member(name, offset, size, f"the tar ends inside {name!r}" if is_cut else None, damage=is_cut)


def _damage(at: int, error: str) -> Member:
    return Member("", at, 0, error, damage=True)


def _ending(file: IO[bytes], at: int) -> Iterator[Member]:
    """The damage at the end, if any: tarfile takes a damaged header for the end; the real end is a block of zeros."""
    file.seek(at)
    block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        yield _damage(at, f"damaged at byte {at}: neither a member nor the end of the tar is there")
    elif file.read(tarfile.RECORDSIZE).strip(b"\0"):
        yield _damage(at, f"there is more after the end of the tar at byte {at}: unpack joined tars")


def _resolved(waiting: list[tuple[str, str]], places: dict[str, tuple[int, int]]) -> Iterator[Member]:
    """Resolve links whose targets come later or are missing. Names may begin with "./"."""
    if not waiting:
        return
    plain = {posixpath.normpath(name): place for name, place in places.items()}
    folders = {posixpath.dirname(name) for name in plain}
    targets = {posixpath.normpath(name): posixpath.normpath(target) for name, target in waiting}
    for name, target in waiting:
        at: str | None = posixpath.normpath(target)
        for _ in range(16):  # links to links
            if at is None or at in plain or at in folders:
                break
            at = _led(at, targets)
        if at in plain:
            yield Member(name, *plain[at])
        elif at in folders:
            yield Member(name, 0, 0, other="link to a folder")
        else:
            yield Member(name, 0, 0, f"a link to {target!r}, which is not a file in the tar")


def _led(name: str, targets: dict[str, str]) -> str | None:
    """The path with its first link (itself or a folder in it) resolved; None without a link."""
    parts = name.split("/")
    for count in range(1, len(parts) + 1):
        if (target := targets.get("/".join(parts[:count]))) is not None:
            return posixpath.normpath("/".join([target, *parts[count:]]))
    return None


class _Headers:
    """A tar's file as tarfile reads it: only headers, and a limited number of bytes per member."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MOST_METADATA

    def read(self, size: int = -1) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"the headers of one member are longer than {MOST_METADATA} bytes")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def split_member(name: str) -> tuple[str, str]:
    """WebDataset's key and extension of a member: the base name is split at its first dot."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


# Writing


END = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar ends with."""


def chunks(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """The header, bytes and padding of a member."""
    return header(name, len(data)), data, bytes(-len(data) % tarfile.BLOCKSIZE)


def header(name: str, size: int) -> bytes:
    """A ustar header without clock, user or host; a pax record before it only where name or size needs one."""
    if len(name) > 100 or not name.isascii() or size >= 8**11:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    # The same bytes, without the ten-fold time that tarfile takes for the general case.
    block = bytearray(_HEADER)
    block[: len(name)] = name.encode()
    block[124:135] = b"%011o" % size
    block[148:154] = b"%06o" % sum(block)  # with the checksum's own field as spaces
    block[154:155] = b"\0"
    return bytes(block)


_HEADER = bytearray(tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT))
_HEADER[148:156] = b" " * 8
