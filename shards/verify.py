"""Verification of a finished set: everything that its manifest, index and tars say is checked against each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from crispedit.shards import damage, layout, remote, storage
from crispedit.shards.damage import Damage
from crispedit.shards.decode import pair_bytes
from crispedit.shards.fetch import Fetcher, SampleAt, ShardFile
from crispedit.shards.index import Index, build, encoded, read_index, read_manifest, scan_tar
from crispedit.shards.pack import file_sha256


@dataclass
class VerifyReport:
    """What was checked and what is wrong. `problems` lists the damage; `unknown` counts texts that are empty."""

    folder: str
    deep: bool
    shards: int = 0
    pairs: int = 0
    bytes: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    problems: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "ok": self.ok,
            "deep": self.deep,
            "shards": self.shards,
            "pairs": self.pairs,
            "bytes": self.bytes,
            "categories": dict(sorted(self.categories.items())),
            "unknown": dict(sorted(self.unknown.items())),
            "counts": dict(sorted(Counter(problem.kind for problem in self.problems).items())),
            "problems": [vars(problem) for problem in self.problems],
        }


@dataclass
class _Shard:
    """What one shard holds."""

    name: str
    index: Index | None = None
    bytes: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    problems: list[Damage] = field(default_factory=list)


def verify(
    folder: str, deep: bool, threads: int, cache: remote.Cache, done: Callable[[str], object] = lambda shard: None
) -> VerifyReport:
    """Check a set: manifest, index, sizes, hashes, counts, members, image sizes and duplicates.

    `deep` also decodes every image and reads every JSON member and caption. `done` is told each shard that is
    checked. ValueError if the folder is not a finished set; everything else that is wrong is in the report.
    """
    manifest = read_manifest(folder)
    report = VerifyReport(folder, deep)
    try:
        table = read_index(folder, manifest)
    except Damage as problem:
        report.problems.append(problem)
        table = None
    report.problems += _mapped(folder, manifest, cache)
    listed = {shard["name"]: shard for shard in manifest["shards"]}
    report.problems += _foreign(folder, set(listed), table)
    rows_of = None if table is None else _by_shard(table)
    with ThreadPoolExecutor(threads) as pool:
        checks = pool.map(lambda entry: _check_shard(folder, entry, rows_of, deep, cache), listed.values())
        found_shards = []
        for shard in checks:
            done(shard.name)
            found_shards.append(shard)
    for shard in found_shards:
        report.shards += 1
        report.bytes += shard.bytes
        report.unknown += shard.unknown
        report.problems += shard.problems
        if shard.index is not None:
            report.pairs += len(shard.index)
            report.categories.update(c for c in _categories(shard.index))
    report.problems += _duplicates(found_shards)
    report.problems += _totals(folder, manifest, report)
    return report


def _mapped(folder: str, manifest: dict[str, Any], cache: remote.Cache) -> Iterator[Damage]:
    """Whether the index that readers map is the one that the manifest names."""
    if (entry := manifest.get("mapped")) is None:
        return
    path = storage.join(folder, entry["name"])
    try:
        sha256 = file_sha256(cache.local(path, entry["bytes"], entry["sha256"]))
    except OSError as error:
        yield Damage(damage.MISSING_SHARD, path, detail=f"the index that readers map: {error}")
        return
    if sha256 != entry["sha256"]:
        yield Damage(damage.HASH, path, detail="the index that readers map is not the one that the manifest names")


def _by_shard(table: pa.Table) -> Callable[[str], pa.Table]:
    """The index rows of a shard, by its name; the table is searched once for all of them."""
    table = table.unify_dictionaries().combine_chunks()  # else every slice would unify them again
    codes, names = encoded(table, "shard")
    order = np.argsort(codes, kind="stable")
    ordered = table if (order[:-1] < order[1:]).all() else table.take(pa.array(order)).combine_chunks()
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    number = {name: place for place, name in enumerate(names.to_pylist())}

    def rows(name: str) -> pa.Table:
        if (place := number.get(name)) is None:
            return ordered.slice(0, 0)
        first = ends[place - 1] if place else 0
        return ordered.slice(first, ends[place] - first)

    return rows


def _check_shard(
    folder: str, entry: dict[str, Any], rows_of: Callable[[str], pa.Table] | None, deep: bool, cache: remote.Cache
) -> _Shard:
    path = storage.join(folder, entry["name"])
    shard = _Shard(entry["name"])
    try:
        local = cache.local(path)
        shard.bytes = local.stat().st_size
        sha256 = file_sha256(local)
    except OSError as error:
        shard.problems.append(Damage(damage.MISSING_SHARD, path, detail=str(error)))
        return shard
    if shard.bytes != entry["bytes"]:
        detail = f"{shard.bytes} bytes, the manifest says {entry['bytes']}"
        shard.problems.append(Damage(damage.TRUNCATED, path, detail=detail))
    elif sha256 != entry["sha256"]:
        shard.problems.append(Damage(damage.HASH, path, detail="sha256 is not the manifest's"))
    scanned = scan_tar(path, cache, shard.problems.append)
    if rows_of is None:
        return shard
    rows = rows_of(entry["name"])
    shard.problems += _disagreements(path, rows, scanned)
    try:
        shard.index = build((ShardFile(path),), rows)
    except ValueError as error:
        shard.problems.append(Damage(damage.DUPLICATE, path, detail=str(error)))
        return shard
    if len(shard.index) != entry["pairs"]:
        detail = f"{len(shard.index)} pairs, the manifest says {entry['pairs']}"
        shard.problems.append(Damage(damage.WRONG_COUNT, path, detail=detail))
    if foreign := set(_categories(shard.index)) - {entry["category"]}:
        detail = f"a pair of {sorted(foreign)[0]!r} in a shard of {entry['category']!r}"
        shard.problems.append(Damage(damage.WRONG_COUNT, path, detail=detail))
    _check_samples(path, shard, rows, deep, cache)
    return shard


def _check_samples(path: str, shard: _Shard, rows: pa.Table, deep: bool, cache: remote.Cache) -> None:
    """The bytes of every member, and with `deep` the pixels and texts."""
    assert shard.index is not None
    sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for row in rows.select(["key", "width", "height"]).to_pylist():
        if row["width"] is not None:
            sizes[row["key"]].add((row["width"], row["height"]))
    fetcher = Fetcher(shard.index.shards, cache)
    for number in range(len(shard.index)):
        at = shard.index.at(number)
        if len(sizes[at.key]) > 1:
            shapes = ", ".join(f"{width}x{height}" for width, height in sorted(sizes[at.key]))
            shard.problems.append(Damage(damage.SIZES_DIFFER, path, at.key, at.offsets[0], shapes))
        try:
            if deep:
                _check_content(path, shard, at, fetcher)
            else:
                fetcher.members(at)
        except Damage as problem:
            shard.problems.append(problem)
    fetcher.close()


def _check_content(path: str, shard: _Shard, at: SampleAt, fetcher: Fetcher) -> None:
    shape = at.height, at.width
    (result,) = fetcher.batch([at], shape, True, np.empty(pair_bytes(shape), np.uint8))
    if result.damage is not None:
        raise result.damage
    assert result.meta is not None
    offset = at.offsets[layout.MEMBERS.index(layout.META)]
    expected = {"format": layout.FORMAT_VERSION, "key": at.key, "category": at.category}
    for name, value in expected.items():
        if result.meta.get(name) != value:
            detail = f"{name} is {result.meta.get(name)!r}, not {value!r}"
            shard.problems.append(Damage(damage.JSON, path, at.key, offset, detail))
    if not str(result.meta.get("instruction") or "").strip():
        shard.problems.append(Damage(damage.CAPTION, path, at.key, offset, "no instruction"))
    shard.unknown.update(name for name, value in result.meta.items() if value == "")


def _disagreements(path: str, rows: pa.Table, scanned: Iterable[dict[str, Any]]) -> Iterator[Damage]:
    """Where the index and the headers of the tar say different things about a member."""
    fields = ("offset", "size", "width", "height", "category")
    in_index = {(row["key"], row["member"]): row for row in rows.to_pylist()}
    in_tar = {(row["key"], row["member"]): row for row in scanned}
    for (key, member), row in in_tar.items():
        if (ours := in_index.get((key, member))) is None:
            yield Damage(damage.WRONG_INDEX, path, key, row["offset"], f"{member} is not in the index")
        elif wrong := [f"{f} {ours[f]}, the tar says {row[f]}" for f in fields if ours[f] != row[f]]:
            yield Damage(damage.WRONG_INDEX, path, key, row["offset"], f"{member}: " + "; ".join(wrong))
    for (key, member), row in in_index.items():
        if (key, member) not in in_tar:
            yield Damage(damage.MISSING_MEMBER, path, key, row["offset"], f"{member} is not in the tar")


def _foreign(folder: str, listed: set[str], table: pa.Table | None) -> Iterator[Damage]:
    """Shards in the folder or the index that the manifest does not list."""
    present = storage.names(folder, ".tar")
    for name in sorted(present - listed):
        yield Damage(damage.FOREIGN_SHARD, storage.join(folder, name), detail="not in the manifest")
    if table is not None:
        for name in sorted(set(table.column("shard").unique().to_pylist()) - listed):
            path = storage.join(folder, layout.INDEX)
            yield Damage(damage.WRONG_INDEX, path, detail=f"has rows of {name}, which is not in the manifest")


def _duplicates(shards: Iterable[_Shard]) -> Iterator[Damage]:
    """Pairs of one key, or of equal source and edited bytes, in more than one place."""
    keys: dict[str, str] = {}
    contents: dict[tuple[int, ...], str] = {}
    for shard in shards:
        if shard.index is None:
            continue
        path = shard.index.shards[0].path
        for number in range(len(shard.index)):
            at = shard.index.at(number)
            if at.key in keys:
                yield Damage(damage.DUPLICATE, path, at.key, at.offsets[0], f"the key is also in {keys[at.key]}")
                continue
            keys[at.key] = shard.name
            if at.hashes is None:
                continue
            content = (*at.hashes[:2], *at.sizes[:2])
            if content in contents:
                detail = f"the same images as key {contents[content]}"
                yield Damage(damage.DUPLICATE, path, at.key, at.offsets[0], detail)
            contents[content] = at.key


def _totals(folder: str, manifest: dict[str, Any], report: VerifyReport) -> Iterator[Damage]:
    """Where the manifest's sums are not those of the index."""
    if any(problem.shard.endswith(layout.INDEX) for problem in report.problems):
        return
    path = storage.join(folder, layout.MANIFEST)
    categories = dict(sorted(report.categories.items()))
    for name, counted in (("pairs", report.pairs), ("bytes", report.bytes), ("categories", categories)):
        if manifest.get(name) != counted:
            detail = f"{name}: {counted}, the manifest says {manifest.get(name)}"
            yield Damage(damage.WRONG_COUNT, path, detail=detail)


def _categories(index: Index) -> list[str]:
    return [index.categories[number] for number in index.category_of]
