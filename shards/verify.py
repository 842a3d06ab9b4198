"""Verification of a finished set: everything that its manifest, index and tars say is checked against each other."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from crispedit.shards import layout, remote, storage
from crispedit.shards.damage import Damage, Kind, KindOfVerify
from crispedit.shards.fetch import DecodeRequest, Fetcher, SampleAt, ShardFile
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
        counts = Counter[str](problem.kind for problem in self.problems)
        tallies = {"categories": self.categories, "unknown": self.unknown, "counts": counts}
        return {
            **vars(self),
            "ok": self.ok,
            **{name: dict(sorted(tally.items())) for name, tally in tallies.items()},
            "problems": [vars(problem) for problem in self.problems],
        }


@dataclass
class _Shard:
    """What one shard holds, and what is wrong with it."""

    name: str
    path: str
    index: Index | None = None
    bytes: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    problems: list[Damage] = field(default_factory=list)

    def wrong(self, kind: Kind | KindOfVerify, detail: str, key: str | None = None, offset: int | None = None) -> None:
        self.problems.append(Damage(kind, self.path, key, offset, detail))


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
    shards = []
    with ThreadPoolExecutor(threads) as pool:
        for shard in pool.map(lambda entry: _check_shard(folder, entry, rows_of, deep, cache), listed.values()):
            done(shard.name)
            shards.append(shard)
            report.shards += 1
            report.bytes += shard.bytes
            report.unknown += shard.unknown
            report.problems += shard.problems
            if shard.index is not None:
                report.pairs += len(shard.index)
                report.categories.update(_categories(shard.index))
    report.problems += _duplicates(shards)
    report.problems += _totals(folder, manifest, report)
    return report


def _mapped(folder: str, manifest: dict[str, Any], cache: remote.Cache) -> Iterator[Damage]:
    """Whether the index that readers map is the one that the manifest names."""
    if (entry := manifest.get("mapped")) is None:
        return
    path = storage.join(folder, entry["name"])
    try:
        if file_sha256(cache.local(path, entry["bytes"], entry["sha256"])) != entry["sha256"]:
            yield Damage("hash", path, detail="the index that readers map is not the one that the manifest names")
    except OSError as error:
        yield Damage("missing_shard", path, detail=f"the index that readers map: {error}")


def _by_shard(table: pa.Table) -> Callable[[str], pa.Table]:
    """The index rows of a shard, by its name; the table is searched once for all of them."""
    table = table.unify_dictionaries().combine_chunks()  # else every slice would unify them again
    codes, names = encoded(table, "shard")
    order = np.argsort(codes, kind="stable")
    ordered = table if (order[:-1] < order[1:]).all() else table.take(pa.array(order)).combine_chunks()
    lengths = np.bincount(codes, minlength=len(names))
    starts = np.cumsum(lengths) - lengths
    spans = dict(zip(names.to_pylist(), zip(starts, lengths, strict=True), strict=True))
    return lambda name: ordered.slice(*spans.get(name, (0, 0)))


def _check_shard(
    folder: str, entry: dict[str, Any], rows_of: Callable[[str], pa.Table] | None, deep: bool, cache: remote.Cache
) -> _Shard:
    shard = _Shard(entry["name"], storage.join(folder, entry["name"]))
    try:
        local = cache.local(shard.path)
        shard.bytes = local.stat().st_size
        sha256 = file_sha256(local)
    except OSError as error:
        shard.wrong("missing_shard", str(error))
        return shard
    if shard.bytes != entry["bytes"]:
        shard.wrong("truncated", f"{shard.bytes} bytes, the manifest says {entry['bytes']}")
    elif sha256 != entry["sha256"]:
        shard.wrong("hash", "sha256 is not the manifest's")
    scanned = scan_tar(shard.path, cache, shard.problems.append)
    if rows_of is None:
        return shard
    rows = rows_of(entry["name"])
    shard.problems += _disagreements(shard.path, rows, scanned)
    try:
        shard.index = build((ShardFile(shard.path),), rows)
    except ValueError as error:
        shard.wrong("duplicate", str(error))
        return shard
    if len(shard.index) != entry["pairs"]:
        shard.wrong("wrong_count", f"{len(shard.index)} pairs, the manifest says {entry['pairs']}")
    if foreign := set(_categories(shard.index)) - {entry["category"]}:
        shard.wrong("wrong_count", f"a pair of {sorted(foreign)[0]!r} in a shard of {entry['category']!r}")
    _check_samples(shard, shard.index, rows, deep, cache)
    return shard


def _check_samples(shard: _Shard, index: Index, rows: pa.Table, deep: bool, cache: remote.Cache) -> None:
    """The bytes of every member, and with `deep` the pixels and texts."""
    sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for row in rows.select(["key", "width", "height"]).to_pylist():
        if row["width"] is not None:
            sizes[row["key"]].add((row["width"], row["height"]))
    fetcher = Fetcher(index.shards, cache)
    for at in map(index.at, range(len(index))):
        if len(sizes[at.key]) > 1:
            shapes = ", ".join(f"{width}x{height}" for width, height in sorted(sizes[at.key]))
            shard.wrong("sizes_differ", shapes, at.key, at.offsets[0])
        try:
            if deep:
                _check_content(shard, at, fetcher)
            else:
                fetcher.read(at, layout.MEMBERS)
        except Damage as problem:
            shard.problems.append(problem)
    fetcher.close()


def _check_content(shard: _Shard, at: SampleAt, fetcher: Fetcher) -> None:
    request = DecodeRequest([at], (at.height, at.width), masks=True)
    (result,) = fetcher.batch(request, np.empty(request.bytes, np.uint8))
    if result.damage is not None:
        raise result.damage
    offset = at.offsets[layout.MEMBERS.index(layout.META)]
    expected = {"format": layout.FORMAT_VERSION, "key": at.key, "category": at.category}
    for name, value in expected.items():
        if result.meta.get(name) != value:
            shard.wrong("json", f"{name} is {result.meta.get(name)!r}, not {value!r}", at.key, offset)
    if not str(result.meta.get("instruction") or "").strip():
        shard.wrong("caption", "no instruction", at.key, offset)
    shard.unknown.update(name for name, value in result.meta.items() if value == "")


def _disagreements(path: str, rows: pa.Table, scanned: Iterable[dict[str, Any]]) -> Iterator[Damage]:
    """Where the index and the headers of the tar say different things about a member."""
    fields = ("offset", "size", "width", "height", "category")
    in_index = {(row["key"], row["member"]): row for row in rows.to_pylist()}
    in_tar = {(row["key"], row["member"]): row for row in scanned}
    for (key, member), row in in_tar.items():
        if (ours := in_index.get((key, member))) is None:
            yield Damage("wrong_index", path, key, row["offset"], f"{member} is not in the index")
        elif wrong := [f"{f} {ours[f]}, the tar says {row[f]}" for f in fields if ours[f] != row[f]]:
            yield Damage("wrong_index", path, key, row["offset"], f"{member}: " + "; ".join(wrong))
    for (key, member), row in in_index.items():
        if (key, member) not in in_tar:
            yield Damage("missing_member", path, key, row["offset"], f"{member} is not in the tar")


def _foreign(folder: str, listed: set[str], table: pa.Table | None) -> Iterator[Damage]:
    """Shards in the folder or the index that the manifest does not list."""
    for name in sorted(storage.names(folder, ".tar") - listed):
        yield Damage("foreign_shard", storage.join(folder, name), detail="not in the manifest")
    if table is not None:
        for name in sorted(set(table.column("shard").unique().to_pylist()) - listed):
            path = storage.join(folder, layout.INDEX)
            yield Damage("wrong_index", path, detail=f"has rows of {name}, which is not in the manifest")


def _duplicates(shards: Iterable[_Shard]) -> Iterator[Damage]:
    """Pairs of one key, or of equal source and edited bytes, in more than one place."""
    keys: dict[str, str] = {}
    contents: dict[tuple[int, ...], str] = {}
    for shard in shards:
        for at in map(shard.index.at, range(len(shard.index))) if shard.index is not None else ():
            place = shard.path, at.key, at.offsets[0]
            if at.key in keys:
                yield Damage("duplicate", *place, f"the key is also in {keys[at.key]}")
            elif at.hashes is not None:
                content = (*at.hashes[:2], *at.sizes[:2])
                if content in contents:
                    yield Damage("duplicate", *place, f"the same images as key {contents[content]}")
                contents[content] = at.key
            keys.setdefault(at.key, shard.name)


def _totals(folder: str, manifest: dict[str, Any], report: VerifyReport) -> Iterator[Damage]:
    """Where the manifest's sums are not those of the index."""
    if any(problem.shard.endswith(layout.INDEX) for problem in report.problems):
        return
    path = storage.join(folder, layout.MANIFEST)
    categories = dict(sorted(report.categories.items()))
    for name, counted in (("pairs", report.pairs), ("bytes", report.bytes), ("categories", categories)):
        if manifest.get(name) != counted:
            yield Damage("wrong_count", path, detail=f"{name}: {counted}, the manifest says {manifest.get(name)}")


def _categories(index: Index) -> list[str]:
    return [index.categories[number] for number in index.category_of]
