"""Pack: the plan that assigns pairs to shards, and the writing of one shard, its index part and the set's manifest.

Every shard is an independent, idempotent task: a tar under a temporary name, synced and renamed, then its index part
the same way. The part's appearance is the commit. `finish` writes manifest.json last: a folder without it is an
unfinished set. The same plan and pairs give the same bytes whoever writes them and however often.
"""

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from crispedit.record import canonical_json, content_keys
from crispedit.shards import index, layout, storage, tar
from crispedit.shards.fetch import ShardFile
from crispedit.shards.layout import Pair

Folder = str | os.PathLike[str]
"""Where a set lies: a local folder or a URL."""

HASHED_BEHIND = 16
"""Pairs whose sha256 may wait while the next are written; they are held in memory."""

WRITTEN_BEHIND = 16 * 2**20
"""Bytes of a shard after which the disk is set to work, so that the final fsync finds little left."""

PLANNED = pa.schema([("key", pa.string()), ("category", pa.string()), ("masked", pa.bool_())])
"""The columns of the pairs to plan: `masked` tells whether a pair's mask is known."""

_HASH = "phash"


@dataclass(frozen=True)
class ShardPlan:
    """The name of a shard and the keys it will hold, in order; `masked`: all of them have a mask, or none has."""

    name: str
    category: str
    keys: tuple[str, ...]
    masked: bool


@dataclass(frozen=True)
class ShardEntry:
    """A committed shard, as the manifest lists it."""

    name: str
    category: str
    pairs: int
    bytes: int
    sha256: str


def plan(
    keys: Mapping[str, Sequence[str]], pairs_per_shard: int, seed: int, masked: Collection[str]
) -> list[ShardPlan]:
    """The shards of a set, sorted by name, from category -> keys in any order.

    Within a category the keys are shuffled by the hash of (seed, key), so their order depends on no generator
    and no other key. The keys in `masked`, those whose mask is known, come first and in shards of their own,
    so that all samples of a shard have the same members: Hugging Face `datasets` refuses a shard whose first
    samples differ. ValueError for a key that comes twice or cannot name a file.
    """
    of_mask = frozenset(masked)
    rows = [{"key": key, "category": name, "masked": key in of_mask} for name in keys for key in keys[name]]
    planned = plan_table(pa.Table.from_pylist(rows, PLANNED), pairs_per_shard, seed).to_pylist()
    return [
        ShardPlan(name, pairs[0]["category"], tuple(pair["key"] for pair in pairs), pairs[0]["masked"])
        for name, pairs in ((n, list(p)) for n, p in groupby(planned, key=lambda pair: pair["shard"]))
    ]


def plan_table(pairs: pa.Table, pairs_per_shard: int, seed: int) -> pa.Table:
    """`plan` for millions of pairs, given and returned as the columns `PLANNED`, beside them shard (its name) and place
    (in the shard). The pairs come back in order of these."""
    if pairs_per_shard < 1:
        raise ValueError(f"pairs_per_shard: must be at least 1, not {pairs_per_shard}")
    layout.check_keys(pairs.column("key"))
    names = sorted(layout.check_category(name) for name in pairs.column("category").unique().to_pylist())
    category = pc.index_in(pairs.column("category"), pa.array(names, pa.string())).to_numpy()
    unmasked = ~pairs.column("masked").to_numpy()
    tickets = np.array(content_keys(["pack", str(seed)], pairs.column("key").to_pylist()), "S32")
    order = np.lexsort((tickets, unmasked, category))
    # Groups of one category, with masks or without, each cut into shards; a category numbers its shards on.
    group = category[order].astype(np.int64) * 2 + unmasked[order]
    first = np.searchsorted(group, group)
    place = np.arange(len(order)) - first
    starts = (place % pairs_per_shard == 0).astype(np.int64)
    number = np.cumsum(starts) - 1
    number -= number[np.searchsorted(category[order], category[order])] if len(order) else 0
    kept, which = np.unique(np.stack([category[order], number]), axis=1, return_inverse=True)
    shards = [layout.shard_name(names[of], n) for of, n in kept.T]
    planned = pairs.take(pa.array(order))
    planned = planned.append_column("shard", pa.array(shards, pa.string()).take(pa.array(which.reshape(-1))))
    return planned.append_column("place", pa.array(place % pairs_per_shard))


def document(pair: Pair) -> str:
    """The canonical JSON text of a pair: its meta with format version, key and category.

    Readers that infer types from a few rows (Hugging Face `datasets` looks at five) must find the same type in every
    row. So `scores`, a mapping name -> number or None, becomes a list of {"name", "value"} with float values, sorted by
    name; any other mapping or list becomes JSON text; and None, a text that is not known, becomes "". Perceptual hashes
    are 64 bits, which no float holds: they stand in `hashes` as 16 hexadecimal digits.
    """
    row: dict[str, Any] = {"format": layout.FORMAT_VERSION, "key": pair.key, "category": pair.category}
    for name, value in pair.meta.items():
        if name in row:
            if value != row[name]:
                raise ValueError(f"key {pair.key!r}: meta says {name} = {value!r}, the pair {row[name]!r}")
        elif name == "scores" and isinstance(value, Mapping):
            numbers: list[dict[str, Any]] = []
            hashes: list[dict[str, Any]] = []
            for score, number in sorted(value.items()):
                if score.endswith(_HASH):
                    digits = "" if number is None else f"{number & (2**64 - 1):016x}"
                    hashes.append({"name": score, "value": digits})
                else:
                    numbers.append({"name": score, "value": None if number is None else float(number)})
            row |= {name: numbers, "hashes": hashes} if hashes else {name: numbers}
        elif value is None:
            row[name] = ""
        elif isinstance(value, Mapping | list | tuple) and name not in ("scores", "hashes"):
            row[name] = canonical_json(value)
        else:
            row[name] = value
    try:
        return canonical_json(row)
    except (TypeError, ValueError) as error:
        raise ValueError(f"key {pair.key!r}: meta is not JSON: {error}") from error


def write_shard(folder: Folder, plan: ShardPlan, pairs: Iterable[Pair], digest: str) -> ShardEntry:
    """Write and commit one shard: exactly the plan's pairs, in its order. `digest` names what they were made from.

    ValueError if a pair is not the one planned or an image has no readable header; nothing is committed then.
    """
    place = os.fspath(folder)
    part = storage.join(place, layout.part_name(plan.name))
    with storage.replaced(storage.join(place, plan.name)) as out:
        rows, size, sha256 = _write_tar(out.fileno(), plan, pairs)
        # From here on the old set, if there was one, is no more: first its manifest, then the shard's old commit.
        storage.remove(storage.join(place, layout.MANIFEST))
        storage.remove(part)
    note = {"digest": digest, "pairs": str(len(plan.keys)), "bytes": str(size), "sha256": sha256}
    _write_table(pa.Table.from_pylist(rows, layout.INDEX_SCHEMA).replace_schema_metadata(note), part)
    return ShardEntry(plan.name, plan.category, len(plan.keys), size, sha256)


def committed(folder: Folder, plan: ShardPlan, digest: str) -> ShardEntry | None:
    """The shard of this plan and digest, if it is already there and complete; then it need not be written again."""
    place = os.fspath(folder)
    try:
        table, note = _read_part(place, plan.name)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    size = storage.size(storage.join(place, plan.name))
    if size is None or note.get("digest") != digest or note.get("bytes") != str(size):
        return None
    keys = tuple(dict.fromkeys(table.column("key").to_pylist()))
    if keys != plan.keys or set(table.column("category").to_pylist()) - {plan.category}:
        return None
    return ShardEntry(plan.name, plan.category, len(keys), size, note["sha256"])


def _read_part(place: str, shard: str) -> tuple[pa.Table, dict[str, str]]:
    """The index part of a shard, and what was noted when it was committed. FileNotFoundError if it never was."""
    table = storage.table(storage.read_bytes(storage.join(place, layout.part_name(shard))))
    note = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    return table.replace_schema_metadata(None), note


def finish(folder: Folder, entries: Iterable[ShardEntry], meta: Mapping[str, Any]) -> None:
    """Turn committed shards into a set: sweep what is not of it, write the indexes, and manifest.json last.

    `meta` is stored in the manifest as it is. ValueError if an entry has no committed shard of that hash.
    """
    place = os.fspath(folder)
    shards = sorted(entries, key=lambda entry: entry.name)
    if len({entry.name for entry in shards}) != len(shards):
        raise ValueError(f"{place}: two entries for one shard")
    storage.remove(storage.join(place, layout.MANIFEST))
    storage.remove(storage.join(place, layout.MAPPED_INDEX))
    _sweep(place, {entry.name for entry in shards})
    tables = [_part_of(place, entry) for entry in shards]
    whole = pa.concat_tables([layout.INDEX_SCHEMA.empty_table(), *tables])
    index_sha256 = _write_table(whole, storage.join(place, layout.INDEX))
    pairs = sum(entry.pairs for entry in shards)
    mapped = {"mapped": _write_mapped(place, shards, tables, index_sha256)} if pairs >= index.MAPPED_PAIRS else {}
    wids = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": "crispedit",
        "shardlist": [{"url": e.name, "nsamples": e.pairs, "filesize": e.bytes} for e in shards],
    }
    _write_json(wids, storage.join(place, layout.WIDS_INDEX))
    categories: Counter[str] = Counter()
    for entry in shards:
        categories[entry.category] += entry.pairs
    manifest = {
        "format": layout.FORMAT_VERSION,
        "pairs": pairs,
        "bytes": sum(entry.bytes for entry in shards),
        "categories": categories,
        "index": {"name": layout.INDEX, "sha256": index_sha256},
        **mapped,
        "shards": [vars(entry) for entry in shards],
        "meta": dict(meta),
    }
    _write_json(manifest, storage.join(place, layout.MANIFEST))


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_tar(handle: int, plan: ShardPlan, pairs: Iterable[Pair]) -> tuple[list[dict[str, Any]], int, str]:
    """(index rows, size in bytes, sha256) of the tar of these pairs. The sha256 runs beside the writing."""
    rows: list[dict[str, Any]] = []
    whole = hashlib.sha256()
    hashing: deque[Future[None]] = deque()
    offset, started = 0, 0
    expected = iter(plan.keys)

    def hash_all(chunks: list[bytes]) -> None:
        for chunk in chunks:
            whole.update(chunk)

    with ThreadPoolExecutor(1) as beside:
        for pair in pairs:
            if (key := next(expected, None)) != pair.key or pair.category != plan.category:
                raise ValueError(f"{plan.name}: expected key {key!r}, got {pair.key!r} ({pair.category})")
            if (pair.mask_png is not None) != plan.masked:
                raise ValueError(f"{plan.name}: {key}: planned with masked={plan.masked}, but the pair differs")
            chunks: list[bytes] = []
            for name, data in members(pair).items():
                member = tar.chunks(f"{key}.{name}", data)
                start = offset + len(member[0])
                hashed = xxhash.xxh3_64_intdigest(data)
                try:
                    rows.append(index.member_row(plan.name, key, name, start, data, plan.category, hashed))
                except ValueError as error:
                    raise ValueError(f"{plan.name}: {key}.{name}: {error}") from error
                offset += sum(map(len, member))
                chunks += member
            if len(hashing) >= HASHED_BEHIND:
                hashing.popleft().result()
            hashing.append(beside.submit(hash_all, chunks))
            _write_all(handle, chunks)
            if offset - started >= WRITTEN_BEHIND:
                _start_writeback(handle, started, offset - started)
                started = offset
        if (key := next(expected, None)) is not None:
            raise ValueError(f"{plan.name}: no pair was given for key {key!r}")
        for pending in hashing:
            pending.result()
    whole.update(tar.END)
    _write_all(handle, [tar.END])
    return rows, offset + len(tar.END), whole.hexdigest()


def _start_writeback(handle: int, start: int, size: int) -> None:
    """Have the system begin to write a range to the disk. On Linux it does so when told that the range is not needed
    in memory; nobody reads a shard while it is being written."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, start, size, os.POSIX_FADV_DONTNEED)


def _write_all(handle: int, chunks: list[bytes]) -> None:
    """Write the chunks in one call, while the system accepts all of them."""
    written = os.writev(handle, chunks)
    if written < sum(map(len, chunks)):
        rest = b"".join(chunks)[written:]
        while rest:
            rest = rest[os.write(handle, rest) :]


def members(pair: Pair) -> dict[str, bytes]:
    """The members of a pair by name, in the order in which they are written."""
    members = {
        layout.SOURCE: pair.source_jpeg,
        layout.EDITED: pair.edited_jpeg,
        layout.MASK: pair.mask_png,
        layout.META: document(pair).encode(),
        layout.TOKENS: pair.tokens,
    }
    return {name: data for name, data in members.items() if data is not None}


def _part_of(place: str, entry: ShardEntry) -> pa.Table:
    """The index part of a committed shard."""
    try:
        table, note = _read_part(place, entry.name)
    except FileNotFoundError as error:
        raise ValueError(f"{place}: shard {entry.name} was never committed (no index part)") from error
    if note.get("sha256", "") != entry.sha256:
        raise ValueError(f"{place}: the index part of {entry.name} is of another shard of that name")
    return table


def _write_mapped(place: str, shards: Sequence[ShardEntry], tables: Sequence[pa.Table], of: str) -> dict[str, Any]:
    """Write the index as readers map it, from the parts of the shards; what the manifest says of it. `of`: the sha256
    of the same index as a table."""
    parts = [index.build((ShardFile(shard.name),), table) for shard, table in zip(shards, tables, strict=True)]
    with storage.replaced(storage.join(place, layout.MAPPED_INDEX)) as file:
        written = Path(file.name)
        index.store(written, index.joined(parts), of)
        size, sha256 = written.stat().st_size, file_sha256(written)
    return {"name": layout.MAPPED_INDEX, "bytes": size, "sha256": sha256}


def _sweep(place: str, keep: set[str]) -> None:
    """Remove shards and index parts of an earlier plan, and what a crash left behind."""
    parts = storage.join(place, layout.PARTS)
    shards = {name for name in storage.names(place, ".tar") if name.startswith("crispedit-")}
    kept_parts = {layout.part_name(name) for name in keep}
    old_parts = {f"{layout.PARTS}/{name}" for name in storage.names(parts, ".parquet")} - kept_parts
    for name in [*(shards - keep), *old_parts]:
        storage.remove(storage.join(place, name))
    if not storage.is_remote(place):  # uploads leave no temporary files
        for path in [*Path(place).glob(".*.tmp"), *Path(parts).glob(".*.tmp")]:
            path.unlink()


def _write_table(table: pa.Table, path: str) -> str:
    """Write a table; the sha256 of the file."""
    with storage.replaced(path) as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        return file_sha256(Path(file.name))


def _write_json(value: object, path: str) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with storage.replaced(path) as file:
        file.write(text.encode())
