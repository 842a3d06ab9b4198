"""Fetching samples by their place: the bytes of the members, checked against the index, and their pixels."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from crispedit.shards import damage, layout
from crispedit.shards.damage import Damage
from crispedit.shards.decode import Pixels, Shape, SizesDifferError, carve, decode_pair
from crispedit.shards.remote import Cache

OPEN_SHARDS = 64
"""Shards that one process keeps open; the one read longest ago is closed first."""


ABSENT = -1
"""The offset of a member that a sample does not have."""


class SampleAt(NamedTuple):
    """Where one sample lies. The tuples run in the order of `layout.MEMBERS`; a hash is None where it is not known."""

    shard: int
    key: str
    category: str
    width: int
    height: int
    offsets: list[int]
    sizes: list[int]
    hashes: list[int] | None


@dataclass(frozen=True)
class ShardFile:
    """A tar of the set: its path or URL, and its size in bytes and sha256 where a manifest tells them."""

    path: str
    size: int | None = None
    sha256: str = ""


class Members(NamedTuple):
    """The stored bytes of one sample."""

    source: bytes
    edited: bytes
    mask: bytes | None
    meta: bytes
    tokens: bytes | None


class Fetched(NamedTuple):
    """The result of one sample of a batch: its JSON member and whether it has a mask, or its damage."""

    meta: dict[str, Any] | None = None
    masked: bool = False
    damage: Damage | None = None


class Fetcher:
    """The open shards of one process."""

    def __init__(self, shards: Sequence[ShardFile], cache: Cache) -> None:
        self._shards = shards
        self._cache = cache
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def members(self, at: SampleAt, masks: bool = True, tokens: bool = True) -> Members:
        """The members of a sample, without its mask or tokens if those are not wanted. Damage if one is
        missing, cut off, or not what the index says."""
        unwanted = {layout.MASK: not masks, layout.TOKENS: not tokens}
        data = self._read(at, [name for name in layout.MEMBERS if not unwanted.get(name)])
        source, edited, meta = (data[name] for name in layout.REQUIRED)
        assert source is not None
        assert edited is not None
        assert meta is not None
        return Members(source, edited, data.get(layout.MASK), meta, data.get(layout.TOKENS))

    def tokens(self, at: SampleAt) -> tuple[bytes, dict[str, Any]]:
        """The tokens of a sample and its JSON member; nothing else is read. Damage as for `members`."""
        data = self._read(at, [layout.META, layout.TOKENS])
        meta, tokens = data[layout.META], data[layout.TOKENS]
        assert meta is not None
        if tokens is None:
            path = self._shards[at.shard].path
            raise Damage(damage.MISSING_MEMBER, path, at.key, detail=layout.TOKENS)
        return tokens, self.parsed(at, meta)

    def meta(self, at: SampleAt) -> dict[str, Any]:
        """The JSON member of a sample; nothing else is read. Damage as for `members`."""
        text = self._read(at, [layout.META])[layout.META]
        assert text is not None
        return self.parsed(at, text)

    def _read(self, at: SampleAt, names: Sequence[str]) -> dict[str, bytes | None]:
        path = self._shards[at.shard].path
        handle, shard_bytes = self._handle(at)
        data_by_name: dict[str, bytes | None] = {}
        for name in names:
            place = layout.MEMBERS.index(name)
            offset, size = at.offsets[place], at.sizes[place]
            if offset == ABSENT and name in layout.REQUIRED:
                raise Damage(damage.MISSING_MEMBER, path, at.key, detail=name)
            if offset == ABSENT:
                data_by_name[name] = None
                continue
            if offset < 0 or size < 0 or offset + size > shard_bytes:
                reason = f"{name}: {size} bytes there are not in the file's {shard_bytes}"
                raise Damage(damage.TRUNCATED, path, at.key, offset, reason)
            data = os.pread(handle, size, offset)
            if at.hashes is not None and xxhash.xxh3_64_intdigest(data) != at.hashes[place]:
                raise Damage(damage.HASH, path, at.key, offset, f"{name}: not the bytes that were written")
            data_by_name[name] = data
        return data_by_name

    def pixels(self, at: SampleAt, masks: bool, into: Pixels) -> Fetched:
        """Decode a sample into memory. Damage as for `members`, or if an image does not decode or fit its pair."""
        try:
            source, edited, mask, text, _ = self.members(at, masks, tokens=False)
            meta = self.parsed(at, text)
            decode_pair(source, edited, mask, (at.height, at.width), into)
        except Damage as problem:
            return Fetched(damage=problem)
        except ValueError as error:
            kind = damage.SIZES_DIFFER if isinstance(error, SizesDifferError) else damage.UNDECODABLE
            path, offset = self._shards[at.shard].path, at.offsets[0]
            return Fetched(damage=Damage(kind, path, at.key, offset, str(error)))
        return Fetched(meta, mask is not None)

    def batch(self, samples: Sequence[SampleAt], shape: Shape, masks: bool, memory: NDArray[np.uint8]) -> list[Fetched]:
        """Decode a batch into flat memory, carved for all of it; what is damaged leaves no gap in it."""
        room = carve(memory, len(samples), shape)
        results = []
        row = 0
        for at in samples:
            result = self.pixels(at, masks, Pixels(room.source[row], room.edited[row], room.mask[row]))
            row += result.damage is None
            results.append(result)
        return results

    def parsed(self, at: SampleAt, text: bytes) -> dict[str, Any]:
        """The JSON member of a sample. Damage if it is not a JSON object."""
        try:
            value = json.loads(text)
        except ValueError as error:
            value = error
        if not isinstance(value, dict):
            path, place = self._shards[at.shard].path, layout.MEMBERS.index(layout.META)
            raise Damage(damage.JSON, path, at.key, at.offsets[place], f"not a JSON object: {value}"[:200])
        return value

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _handle(self, at: SampleAt) -> tuple[int, int]:
        """(descriptor, size in bytes) of a sample's shard, opened if need be. Damage if it is not there."""
        if opened := self._open.get(at.shard):
            self._open.move_to_end(at.shard)
            return opened
        shard = self._shards[at.shard]
        try:
            handle = os.open(self._cache.local(shard.path, shard.size, shard.sha256), os.O_RDONLY)
        except OSError as error:
            raise Damage(damage.MISSING_SHARD, shard.path, at.key, detail=str(error)) from error
        if len(self._open) >= OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[at.shard] = handle, os.fstat(handle).st_size
        return self._open[at.shard]
