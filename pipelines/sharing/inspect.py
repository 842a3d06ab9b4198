"""crispedit inspect: show a shard set: a contact sheet of pairs, or one pair with all its data."""

import argparse
import json
from pathlib import Path

import pyarrow.compute as pc

from crispedit.shards import layout
from crispedit.shards.fetch import ABSENT
from crispedit.shards.read import ShardReader, read_shards
from crispedit.shards.sheet import contact_sheet
from crispedit.shards.storage import split

THUMBNAIL_PX = 256
SINGLE_PX = 768


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("shards", help="a set, or plain tars; path, glob, braces or URL")
    add("key", nargs="?", help="a pair's key or its beginning; without it, pairs from the whole set are shown")
    add("--output", type=Path, default=Path("contact_sheet.png"), help="the image to write (contact_sheet.png)")
    add("--pairs", type=int, default=24, help="number of pairs to show")
    add("--columns", type=int, default=2, help="pairs per row (default 2)")
    add("--categories", nargs="+", help="only these categories")


def run(args: argparse.Namespace) -> int:
    if args.pairs < 1 or args.columns < 1:
        raise ValueError("--pairs, --columns: must be at least 1")
    reader = read_shards(args.shards, categories=args.categories)
    if args.key is not None:
        key = _whole_key(reader, args.shards, args.key)
        pairs = [reader.get(key)]
        print(json.dumps({"place": _place(reader, key), **pairs[0].meta}, indent=1, ensure_ascii=False))
        sheet = contact_sheet(pairs, 1, SINGLE_PX)
    else:
        count = min(args.pairs, len(reader))
        spread = [number * len(reader) // count for number in range(count)]
        sheet = contact_sheet([pair for _, pair in reader.items(spread)], args.columns, THUMBNAIL_PX)
    sheet.save(args.output)
    print(args.output)
    return 0


def _whole_key(reader: ShardReader, shards: str, start: str) -> str:
    """The key that begins with these characters. ValueError if none or several do."""
    keys = reader.index.keys
    matches = [start] if pc.index(keys, start).as_py() >= 0 else keys.filter(pc.starts_with(keys, start)).to_pylist()
    if not matches:
        raise ValueError(f"{shards}: no pair's key is or begins with {start!r}")
    if len(matches) > 1:
        raise ValueError(f"{shards}: {len(matches)} keys begin with {start!r}, such as {' and '.join(matches[:2])}")
    return str(matches[0])


def _place(reader: ShardReader, key: str) -> dict[str, object]:
    at = reader.index.at(reader.index.find(key))
    members = {
        name: {"offset": offset, "bytes": size}
        for name, offset, size in zip(layout.MEMBERS, at.offsets, at.sizes, strict=True)
        if offset != ABSENT
    }
    return {"shard": split(reader.index.shards[at.shard].path)[1], "members": members}
