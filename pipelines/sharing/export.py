"""crispedit export: write a shard set in another layout, for tools that do not read tars."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from crispedit import console
from crispedit.shards.export import TARGETS, export
from crispedit.shards.remote import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", help="sets, or plain tars; paths, globs, braces or URLs")
    parser.add_argument("--to", choices=TARGETS, required=True, help="the layout to write")
    parser.add_argument("--output", required=True, help="a new folder, or a URL")
    parser.add_argument("--categories", nargs="+", help="only these")


def run(args: argparse.Namespace) -> int:
    with tqdm(unit="pair", disable=not console.shows_progress()) as bar:
        count = export(args.shards, args.to, args.output, Cache(), args.categories, bar.update)
    print(f"{count} pairs: {args.output}")
    return 0
