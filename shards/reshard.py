"""Repacking: one set made of several, without duplicates and within quotas, through the plan that pack uses."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from crispedit.record import canonical_json, content_key
from crispedit.shards import card, layout, storage
from crispedit.shards.fetch import ABSENT, Fetcher, SampleAt
from crispedit.shards.index import open_index, read_manifest
from crispedit.shards.pack import Folder, ShardEntry, committed, finish, plan, write_shard
from crispedit.shards.remote import Cache


@dataclass(frozen=True)
class Repacked:
    """What happened to the pairs of all sources: pairs given = written + the rest."""

    shards: list[ShardEntry]
    given: int
    written: int
    same_key: int
    same_images: int
    over_quota: int


class _Copy(NamedTuple):
    """A pair of a source set."""

    at: SampleAt
    fetcher: Fetcher
    content: tuple[int, ...]
    """Hashes and sizes of source and edited."""


def repack(
    sources: Sequence[str],
    out: Folder,
    pairs_per_shard: int,
    seed: int,
    quotas: Mapping[str, int],
    cache: Cache,
    done: Callable[[ShardEntry], object] = lambda entry: None,
) -> Repacked:
    """Write the pairs of the source sets (or plain tars) as one finished set. After a crash, the same call resumes.

    Of pairs with one key, or with the same source and edited bytes, the first stays: sources in the order given, keys
    in theirs. Where a quota is below what a category has, the pairs are chosen by the hash of (seed, key). ValueError
    if one key names different images, for a quota of a category that no source has, and if `out` holds another set.
    """
    kept: dict[str, _Copy] = {}
    contents: set[tuple[int, ...]] = set()
    dropped = Counter(same_key=0, same_images=0, over_quota=0)
    fingerprints = []
    for source in sources:
        if _inside(source, out):
            raise ValueError(f"{out}: a set cannot be written over one of its sources")
        index = open_index(source, cache)
        fetcher = Fetcher(index.shards, cache)
        fingerprints.append(index.fingerprint)
        for at in sorted((index.at(i) for i in range(len(index))), key=lambda at: at.key):
            content = _content(at, fetcher)
            if (same := kept.get(at.key)) is not None:
                if same.content != content:
                    raise ValueError(f"key {at.key}: its images in {source} differ from those in an earlier set")
                dropped["same_key"] += 1
            elif content in contents:
                dropped["same_images"] += 1
            else:
                kept[at.key] = _Copy(at, fetcher, content)
                contents.add(content)
    given = len(kept) + dropped.total()

    by_category: dict[str, list[str]] = {}
    for key, copy in kept.items():
        by_category.setdefault(copy.at.category, []).append(key)
    if unknown := set(quotas) - set(by_category):
        raise ValueError(f"quota: no category {sorted(unknown)[0]!r}; there are {', '.join(sorted(by_category))}")
    for category, quota in quotas.items():
        by_category[category].sort(key=lambda key: content_key("quota", str(seed), key))
        dropped["over_quota"] += max(0, len(by_category[category]) - quota)
        del by_category[category][quota:]
    masked = {key for key, copy in kept.items() if copy.at.offsets[layout.MEMBERS.index(layout.MASK)] != ABSENT}

    settings = {"pairs_per_shard": pairs_per_shard, "seed": seed, "quotas": dict(quotas)}
    made = {"sources": fingerprints, **settings}
    if storage.exists(storage.join(os.fspath(out), layout.MANIFEST)):
        existing = read_manifest(os.fspath(out))["meta"].get("repacked", {})
        if {name: existing.get(name) for name in made} != made:
            raise ValueError(f"{out}: holds another set; give a new folder, or remove that set first")
    digest = content_key("repack", *fingerprints, canonical_json(settings))
    entries = []
    for shard in plan(by_category, pairs_per_shard, seed, masked):
        pairs = (kept[key].fetcher.pair(kept[key].at) for key in shard.keys)
        entry = committed(out, shard, digest) or write_shard(out, shard, pairs, digest)
        entries.append(entry)
        done(entry)
    counts = {"given": given, "written": sum(entry.pairs for entry in entries), **dropped}
    metas = _metas(sources)
    finish(out, entries, {**card.common(metas), "repacked": {**made, **counts, "meta": metas}})
    _write_card(out, sources, (kept[key] for keys in by_category.values() for key in keys))
    return Repacked(entries, **counts)


def _metas(sources: Sequence[str]) -> list[dict[str, Any]]:
    """How the source sets were made, from their manifests; plain tars have none."""
    folders = [path for source in sources for path in storage.expand(source) if not path.endswith(".tar")]
    return [read_manifest(folder.removesuffix(f"/{layout.MANIFEST}"))["meta"] for folder in folders]


def _write_card(out: Folder, sources: Sequence[str], kept: Iterable[_Copy]) -> None:
    contents = card.Contents()
    for copy in kept:
        contents.add(copy.at.category, copy.fetcher.meta(copy.at))
    origin = "merged by CrispEdit" if len(sources) > 1 else "packed again by CrispEdit"
    with storage.replaced(storage.join(os.fspath(out), card.CARD)) as file:
        file.write(card.text(origin, contents, card.sources_of(sources), "*.tar").encode())


def _content(at: SampleAt, fetcher: Fetcher) -> tuple[int, ...]:
    hashes = at.hashes
    if hashes is None:
        data = fetcher.read(at, layout.MEMBERS)
        hashes = [xxhash.xxh3_64_intdigest(data[name]) for name in (layout.SOURCE, layout.EDITED)]
    return (*hashes[:2], *at.sizes[:2])


def _inside(source: str, out: Folder) -> bool:
    place = os.fspath(out)
    if storage.is_remote(place):
        return place.rstrip("/") in (source.rstrip("/"), storage.split(source)[0])
    folder, target = Path(source), Path(out)
    return target.exists() and any(path.exists() and path.samefile(target) for path in (folder, folder.parent))
