"""The index of a shard set in memory: where every member of every sample lies, as arrays, about 150 bytes a sample.

It comes from index.parquet beside a manifest or, for plain tars without one, from a scan of their headers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from crispedit.record import canonical_json, content_key
from crispedit.shards import layout, remote, storage, tar
from crispedit.shards.damage import Damage, Kind
from crispedit.shards.decode import image_size
from crispedit.shards.fetch import ABSENT, SampleAt, ShardFile


@dataclass(frozen=True)
class Index:
    """N samples over S shards. The arrays run over the samples, the last three over `layout.MEMBERS` too."""

    shards: tuple[ShardFile, ...]
    keys: pa.Array
    categories: tuple[str, ...]
    shard_of: NDArray[np.int32]
    category_of: NDArray[np.int16]
    size_of: NDArray[np.int32]
    """[N, 2]: (width, height) in pixels of the source; 0 where it is not known."""
    offsets: NDArray[np.int64]
    """[N, 5], ABSENT where there is no such member."""
    sizes: NDArray[np.int64]
    """[N, 5] in bytes."""
    hashes: NDArray[np.uint64] | None = None
    """[N, 5], xxh3_64; None if they are not known."""

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, sample: int) -> SampleAt:
        width, height = self.size_of[sample].tolist()
        return SampleAt(
            int(self.shard_of[sample]),
            self.keys[sample].as_py(),
            self.categories[self.category_of[sample]],
            width,
            height,
            self.offsets[sample].tolist(),
            self.sizes[sample].tolist(),
            None if self.hashes is None else self.hashes[sample].tolist(),
        )

    def find(self, key: str) -> int:
        """The sample of a key. KeyError if there is none."""
        return self._places[key]

    def select(self, samples: NDArray[np.bool_]) -> Index:
        """The index of some of the samples, [N] true where kept; shards and categories keep their numbers."""
        arrays: dict[str, Any] = {name: array[samples] for name, array in self.arrays().items()}
        return replace(self, keys=self.keys.filter(pa.array(samples)), **arrays)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name; the hashes only if they are known."""
        return {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the samples and their locations, which identifies the set for a resumed reader."""
        digest = xxhash.xxh3_128()
        for shard in self.shards:
            digest.update(storage.split(shard.path)[1].encode() + b"\0")
        digest.update("\0".join(self.categories).encode())
        digest.update("\0".join(self.keys.to_pylist()).encode())
        for array in (self.shard_of, self.category_of, self.size_of, self.offsets, self.sizes):
            digest.update(array.tobytes())
        return digest.hexdigest()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.keys.to_pylist())}


MAPPED_PAIRS = 100_000
"""With at least this many samples, the processes of a node share one index, mapped from a file."""

ARRAYS = ("shard_of", "category_of", "size_of", "offsets", "sizes", "hashes")

OnDamage = Callable[[Damage], None] | None
"""What damage is passed to; None: it is raised."""

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""Shard sets (a folder or its manifest.json) and tars, each a path, glob, brace pattern or URL."""


@dataclass(frozen=True)
class _Set:
    """A finished set, or those of its shards that are named."""

    folder: str
    names: Sequence[str] | None
    manifest: dict[str, Any]
    cache: remote.Cache

    @cached_property
    def shards(self) -> tuple[ShardFile, ...]:
        listed = {shard["name"]: shard for shard in self.manifest["shards"]}
        if foreign := set(self.names or ()) - set(listed):
            raise ValueError(f"{self.folder}: {sorted(foreign)[0]} is not a shard of this set's manifest")
        return tuple(
            ShardFile(storage.join(self.folder, name), listed[name]["bytes"], listed[name]["sha256"])
            for name in (listed if self.names is None else self.names)
        )

    def mapped(self) -> Index | None:
        """The index file that was packed with the set; None without one, or if it is damaged."""
        entry = self.manifest.get("mapped")
        if entry is None or self.names is not None:
            return None
        try:
            path = self.cache.local(storage.join(self.folder, entry["name"]), entry["bytes"], entry["sha256"])
            return load(path, self.shards, self.manifest["index"]["sha256"])
        except OSError:
            return None

    def index(self, on_damage: OnDamage) -> Index:
        """The index from the table of members, or, if that is damaged, from the headers of the tars."""
        try:
            table = read_index(self.folder, self.manifest)
        except Damage as problem:
            if on_damage is None:
                raise
            on_damage(problem)
            return _of_headers(self.shards, self.cache, on_damage)
        if self.names is not None:
            names = pa.array(self.names, pa.string())
            table = table.filter(pc.is_in(table.column("shard").cast(pa.string()), names))
        return build(self.shards, table)


def open_index(paths: Paths, cache: remote.Cache, on_damage: OnDamage = None) -> Index:
    """The index of shard sets and tars.

    Several sets are read one after another. Damage to an index, or to a tar that must be scanned, is raised; with
    `on_damage` it is passed to that function, and the readable rest is used. ValueError for a set without a manifest or
    of another format, and for a repeated key.
    """
    sets, loose = _sets_and_tars(paths, cache)
    if len(sets) == 1 and not loose and (index := sets[0].mapped()) is not None:
        return index
    damages: list[Damage] = []

    def note(damage: Damage) -> None:
        damages.append(damage)
        if on_damage is not None:
            on_damage(damage)

    def read() -> Index:
        report = None if on_damage is None else note
        parts = [one.index(report) for one in sets]
        if loose:
            parts.append(_of_headers(loose, cache, report))
        index = joined(parts)
        del parts
        pa.default_memory_pool().release_unused()
        return index

    if loose or sum(one.manifest["pairs"] for one in sets) < MAPPED_PAIRS:
        return read()
    # The first process of a node writes the index into the cache, and all of them map it.
    of = content_key(canonical_json([[one.folder, one.names, one.manifest["index"]["sha256"]] for one in sets]))
    own: list[Index] = []

    def write(path: Path) -> None:
        own.append(read())
        if damages:
            raise OSError("the index of a damaged set is not shared")
        store(path, own[0], of)

    try:
        return load(cache.made(f"index-{of}.arrow", write), tuple(shard for one in sets for shard in one.shards), of)
    except OSError:  # no room, no folder to write to, or damage: each process has its own
        return own[0] if own else read()


def _sets_and_tars(paths: Paths, cache: remote.Cache) -> tuple[list[_Set], tuple[ShardFile, ...]]:
    """The finished sets, wholly or by name of their shards, and the tars that are in none."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    expanded = [path for pattern in given for path in storage.expand(os.fspath(pattern))]
    if not expanded:
        raise ValueError("no shards were given")
    sets: list[tuple[str, list[str] | None]] = []
    tars: dict[str, list[str]] = {}
    for path in expanded:
        folder, name = storage.split(path)
        if name.endswith(".tar"):
            tars.setdefault(folder, []).append(name)
        else:
            sets.append((folder if name == layout.MANIFEST else path, None))
    loose: list[ShardFile] = []
    for folder, names in tars.items():
        if storage.exists(storage.join(folder, layout.MANIFEST)):
            sets.append((folder, names))
        else:
            loose += [ShardFile(storage.join(folder, name)) for name in names]
    return [_Set(folder, names, read_manifest(folder), cache) for folder, names in sets], tuple(loose)


def store(path: Path, index: Index, of: str) -> None:
    """Write an index as a file to map, without the paths of its shards. `of` identifies the indexed sets."""
    note = {"of": of, "categories": json.dumps(index.categories), "fingerprint": index.fingerprint}
    table = pa.table({"keys": index.keys, **{name: _column(array) for name, array in index.arrays().items()}})
    table = table.replace_schema_metadata(note)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))


def load(path: Path, shards: tuple[ShardFile, ...], of: str) -> Index:
    """The index that `store` wrote; its arrays are read-only views of the file, which all processes share. OSError if
    the file is damaged, or of something else."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise OSError(f"{path}: {error}") from error
    note = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    if note.get("of") != of:
        raise OSError(f"{path} is the index of another set")
    columns: dict[str, Any] = {name: _array(table.column(name)) for name in table.column_names}
    index = Index(shards=shards, categories=tuple(json.loads(note["categories"])), **columns)
    index.__dict__["fingerprint"] = note["fingerprint"]  # where cached_property keeps it
    return index


def _column(array: NDArray[Any]) -> pa.Array:
    """An array [N] or [N, K] as a column."""
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _array(column: pa.ChunkedArray) -> pa.Array | NDArray[Any]:
    array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=True).reshape(-1, array.type.list_size)
    return array if pa.types.is_string(array.type) else array.to_numpy(zero_copy_only=True)


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a finished set. ValueError if the folder has none, or one of a newer format."""
    path = storage.join(folder, layout.MANIFEST)
    try:
        manifest = json.loads(storage.read_bytes(path))
        version = manifest["format"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(_no_set(folder)) from error
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a manifest of shards: {error}") from error
    if version != layout.FORMAT_VERSION:
        raise ValueError(f"{path}: format {version}; this version reads format {layout.FORMAT_VERSION}")
    return dict(manifest)


def _no_set(folder: str) -> str:
    """Why a folder is not a finished set, and what the user may have meant."""
    if storage.exists(storage.join(storage.join(folder, "shards"), layout.MANIFEST)):
        return f"{folder} is a run; did you mean {storage.join(folder, 'shards')}?"
    if not storage.exists(folder):
        return f"{folder}: there is no such file or folder"
    if folder.endswith(".tar"):
        return f"{folder}: a single tar; give the folder of a finished set"
    if storage.names(folder, ".tar"):
        return f"{folder}: no {layout.MANIFEST}, so the set is unfinished: run pack again, or give its tars to a reader"
    return f"{folder}: no set of shards: it has no {layout.MANIFEST} and no tars"


def read_index(folder: str, manifest: dict[str, Any]) -> pa.Table:
    """The index table of a set. Damage if it is not the one that the manifest names."""
    path = storage.join(folder, layout.INDEX)
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError as error:
        raise Damage("missing_shard", path, detail="the index of the set") from error
    if hashlib.sha256(data).hexdigest() != manifest["index"]["sha256"]:
        raise Damage("hash", path, detail="the index is not the one that the manifest names")
    return storage.table(data, ["shard", "key", "member", "category"])


def _of_headers(shards: tuple[ShardFile, ...], cache: remote.Cache, on_damage: OnDamage) -> Index:
    """The index, without hashes, from the headers of tars that have none."""
    rows = [row for shard in shards for row in scan_tar(shard.path, cache, on_damage)]
    return build(shards, pa.Table.from_pylist(rows, layout.INDEX_SCHEMA))


def scan_tar(path: str, cache: remote.Cache, on_damage: OnDamage = None) -> list[dict[str, Any]]:
    """Index rows, with hashes left out, from a walk over a tar's headers. Foreign members are left out.

    The first damage is raised; with `on_damage` all of it is passed to that function, and the intact rows are returned.
    """

    def report(damage: Damage) -> None:
        if on_damage is None:
            raise damage
        on_damage(damage)

    shard = storage.split(path)[1]
    rows: list[dict[str, Any]] = []
    try:
        with open(cache.local(path), "rb") as file:
            for member in tar.members(file):
                in_folder = "/" in member.name
                key, _, name = member.name.rpartition("/")[2].partition(".")
                if member.damage:
                    report(Damage("truncated", path, member.name or None, member.offset, str(member.error)))
                elif in_folder and name in layout.MEMBERS:
                    reason = "a sample's key must not contain a slash"
                    report(Damage("foreign_member", path, member.name, member.offset, reason))
                elif in_folder or name not in layout.MEMBERS or member.other or member.error:
                    if on_damage is not None:
                        on_damage(Damage("foreign_member", path, member.name, member.offset, member.error or ""))
                else:
                    data = os.pread(file.fileno(), member.size, member.offset)
                    try:
                        category = str(json.loads(data).get("category", "")) if name == layout.META else ""
                        rows.append(member_row(shard, key, name, member.offset, data, category))
                    except (ValueError, AttributeError) as error:
                        kind: Kind = "json" if name == layout.META else "undecodable"
                        report(Damage(kind, path, key, member.offset, f"{name}: {error}"))
    except FileNotFoundError:
        report(Damage("missing_shard", path))
    categories = {row["key"]: row["category"] for row in rows if row["member"] == layout.META}
    for row in rows:
        row["category"] = categories.get(row["key"], "")
    return rows


def member_row(
    shard: str, key: str, member: str, offset: int, data: bytes, category: str, xxh3_64: int | None = None
) -> dict[str, Any]:
    """The index row of a member with these bytes. ValueError if an image has no readable header."""
    width, height = (None, None) if member in (layout.META, layout.TOKENS) else image_size(member, data)
    row = (shard, key, member, offset, len(data), xxh3_64, category, width, height)
    return dict(zip(layout.INDEX_SCHEMA.names, row, strict=True))


def build(shards: tuple[ShardFile, ...], table: pa.Table) -> Index:
    """The index of member rows: neighbouring rows of one shard and key are one sample. ValueError for a repeated key,
    or a row of another shard."""
    shard_row, shard_names = encoded(table, "shard")
    numbers = {storage.split(shard.path)[1]: number for number, shard in enumerate(shards)}
    if unknown := set(shard_names.to_pylist()) - set(numbers):
        raise ValueError(f"the index has rows of {sorted(unknown)[0]}, which is not a shard of its set")
    shard = np.array([numbers[name] for name in shard_names.to_pylist()], np.int32)[shard_row]
    key_row, key_names = encoded(table, "key")
    starts = np.ones(len(table), bool)
    starts[1:] = (shard[1:] != shard[:-1]) | (key_row[1:] != key_row[:-1])
    keys = _unique(key_names.take(pa.array(key_row[starts])))
    sample = np.cumsum(starts) - 1
    member_row, member_names = encoded(table, "member")
    numbers_of = [layout.MEMBERS.index(n) if n in layout.MEMBERS else ABSENT for n in member_names.to_pylist()]
    member = np.array(numbers_of, np.int64)[member_row]
    category_row, category_names = encoded(table, "category")
    categories = sorted(category_names.to_pylist())
    ranks = np.array([categories.index(name) for name in category_names.to_pylist()], np.int16)

    known = member != ABSENT
    place = sample[known], member[known]
    shape = len(keys), len(layout.MEMBERS)
    offsets, sizes = np.full(shape, ABSENT, np.int64), np.zeros(shape, np.int64)
    offsets[place] = _numbers(table, "offset", np.int64)[known]
    sizes[place] = _numbers(table, "size", np.int64)[known]
    hashes = None
    if table.column("xxh3_64").null_count == 0:
        hashes = np.zeros(shape, np.uint64)
        hashes[place] = _numbers(table, "xxh3_64", np.uint64)[known]
    size_of = np.zeros((len(keys), 2), np.int32)
    of_source = member == layout.MEMBERS.index(layout.SOURCE)
    for side, column in enumerate(("width", "height")):
        size_of[sample[of_source], side] = _numbers(table, column, np.int32)[of_source]
    category_of = ranks[category_row[starts]]
    return Index(shards, keys, tuple(categories), shard[starts], category_of, size_of, offsets, sizes, hashes)


def joined(parts: Sequence[Index]) -> Index:
    """One index of several, in their order. Hashes are dropped if one part has none."""
    if len(parts) == 1:
        return parts[0]
    categories = sorted({name for part in parts for name in part.categories})
    first_shard = np.cumsum([0, *(len(part.shards) for part in parts)])
    ranks = [np.array([categories.index(name) for name in part.categories], np.int16) for part in parts]
    common = [name for name in ARRAYS if all(name in part.arrays() for part in parts)]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in common}
    arrays["shard_of"] = np.concatenate([p.shard_of + np.int32(n) for p, n in zip(parts, first_shard, strict=False)])
    arrays["category_of"] = np.concatenate([rank[p.category_of] for p, rank in zip(parts, ranks, strict=True)])
    return Index(
        tuple(shard for part in parts for shard in part.shards),
        _unique(pa.concat_arrays([part.keys for part in parts])),
        tuple(categories),
        **arrays,
    )


def _unique(keys: pa.Array) -> pa.Array:
    if (twice := layout.repeated(keys)) is not None:
        remedy = "merge the sets with `crispedit merge`, which drops duplicates"
        raise ValueError(f"key {twice['values']!r} comes more than once: {remedy}")
    return keys


def encoded(table: pa.Table, column: str) -> tuple[NDArray[np.int32], pa.Array]:
    """([rows] number in the dictionary, dictionary) of a text column."""
    texts = table.column(column)
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    if texts.num_chunks == 0:
        return np.zeros(0, np.int32), pa.array([], pa.string())
    texts = texts.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in texts.chunks])
    used, dense = np.unique(codes, return_inverse=True)  # a filtered table keeps unused names
    return dense.astype(np.int32), texts.chunk(0).dictionary.take(pa.array(used))


def _numbers(table: pa.Table, column: str, dtype: Any) -> NDArray[Any]:
    return pc.fill_null(table.column(column), 0).to_numpy().astype(dtype, copy=False)
