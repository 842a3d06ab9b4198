"""Fetching samples by their place: the bytes of the members, checked against the index, and their pixels."""

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from crispedit.shards import layout
from crispedit.shards.damage import Damage, Kind
from crispedit.shards.decode import Pixels, Shape, SizesDifferError, carve, decode_pair, pair_bytes
from crispedit.shards.layout import Pair
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


class DecodeRequest(NamedTuple):
    """A batch to decode: samples of one shape, with their masks or without."""

    samples: list[SampleAt]
    shape: Shape
    masks: bool

    @property
    def bytes(self) -> int:
        return len(self.samples) * pair_bytes(self.shape)


class Fetched(NamedTuple):
    """The result of one sample of a batch: its JSON member and whether it has a mask, or its damage."""

    meta: dict[str, Any]
    masked: bool = False
    damage: Damage | None = None


class Fetcher:
    """The open shards of one process."""

    def __init__(self, shards: Sequence[ShardFile], cache: Cache) -> None:
        self._shards = shards
        self._cache = cache
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def read(self, at: SampleAt, names: Iterable[str]) -> dict[str, bytes]:
        """Those of these members that the sample has. Damage if one is cut off, is not what the index says, or is
        missing and required."""
        handle, shard_bytes = self._handle(at)
        members: dict[str, bytes] = {}
        for name in names:
            place = layout.MEMBERS.index(name)
            offset, size = at.offsets[place], at.sizes[place]
            if offset == ABSENT:
                if name in layout.REQUIRED:
                    raise self._damage("missing_member", at, None, name)
                continue
            if offset < 0 or size < 0 or offset + size > shard_bytes:
                reason = f"{name}: {size} bytes there are not in the file's {shard_bytes}"
                raise self._damage("truncated", at, offset, reason)
            members[name] = os.pread(handle, size, offset)
            if at.hashes is not None and xxhash.xxh3_64_intdigest(members[name]) != at.hashes[place]:
                raise self._damage("hash", at, offset, f"{name}: not the bytes that were written")
        return members

    def pair(self, at: SampleAt, masks: bool = True, tokens: bool = True) -> Pair:
        """A sample as stored, without its mask or tokens if those are not wanted. Damage as for `read`."""
        unwanted = {layout.MASK: not masks, layout.TOKENS: not tokens}
        data = self.read(at, [name for name in layout.MEMBERS if not unwanted.get(name)])
        source, edited, text = (data[name] for name in layout.REQUIRED)
        meta = self._parsed(at, text)
        return Pair(at.key, at.category, source, edited, data.get(layout.MASK), meta, data.get(layout.TOKENS))

    def tokens(self, at: SampleAt) -> tuple[bytes, dict[str, Any]]:
        """The tokens of a sample and its JSON member; nothing else is read. Damage as for `read`."""
        data = self.read(at, [layout.META, layout.TOKENS])
        if layout.TOKENS not in data:
            raise self._damage("missing_member", at, None, layout.TOKENS)
        return data[layout.TOKENS], self._parsed(at, data[layout.META])

    def meta(self, at: SampleAt) -> dict[str, Any]:
        """The JSON member of a sample; nothing else is read. Damage as for `read`."""
        return self._parsed(at, self.read(at, [layout.META])[layout.META])

    def batch(self, request: DecodeRequest, memory: NDArray[np.uint8]) -> list[Fetched]:
        """Decode a batch into flat memory, carved for all of it; what is damaged leaves no gap in it."""
        room = carve(memory, len(request.samples), request.shape)
        results = []
        row = 0
        for at in request.samples:
            results.append(self._pixels(at, request.masks, Pixels(*(part[row] for part in room))))
            row += results[-1].damage is None
        return results

    def _pixels(self, at: SampleAt, masks: bool, into: Pixels) -> Fetched:
        """Decode a sample into memory. Damage as for `read`, or if an image does not decode or fit its pair."""
        try:
            pair = self.pair(at, masks, tokens=False)
            decode_pair(pair.source_jpeg, pair.edited_jpeg, pair.mask_png, (at.height, at.width), into)
        except Damage as problem:
            return Fetched({}, damage=problem)
        except ValueError as error:
            kind: Kind = "sizes_differ" if isinstance(error, SizesDifferError) else "undecodable"
            return Fetched({}, damage=self._damage(kind, at, at.offsets[0], str(error)))
        return Fetched(dict(pair.meta), pair.mask_png is not None)

    def _parsed(self, at: SampleAt, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError as error:
            value = error
        if not isinstance(value, dict):
            offset = at.offsets[layout.MEMBERS.index(layout.META)]
            raise self._damage("json", at, offset, f"not a JSON object: {value}"[:200])
        return value

    def _damage(self, kind: Kind, at: SampleAt, offset: int | None, detail: str) -> Damage:
        return Damage(kind, self._shards[at.shard].path, at.key, offset, detail)

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
            raise self._damage("missing_shard", at, None, str(error)) from error
        if len(self._open) >= OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[at.shard] = handle, os.fstat(handle).st_size
        return self._open[at.shard]
