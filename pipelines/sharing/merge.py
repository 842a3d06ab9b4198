"""crispedit merge, crispedit reshard: write one shard set from one or several, with quotas, without duplicates."""

import argparse
import sys

from tqdm import tqdm

from crispedit import console
from crispedit.shards.remote import Cache
from crispedit.shards.reshard import repack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("out", help="folder of the new set, or a URL")
    add("shards", nargs="+", help="sets, or plain tars; paths, globs, braces or URLs")
    add("--pairs-per-shard", type=int, default=1000, help="pairs in each new shard (default 1000)")
    add("--seed", type=int, default=0, help="seed of the order and of the choice by quota")
    add("--quota", action="append", default=[], metavar="CATEGORY=N", help="at most N pairs of a category; repeatable")


def run(args: argparse.Namespace) -> int:
    quotas = dict(_quota(text) for text in args.quota)
    with tqdm(unit="shard", disable=not console.shows_progress()) as bar:
        result = repack(args.shards, args.out, args.pairs_per_shard, args.seed, quotas, Cache(), lambda _: bar.update())
    print(f"{result.written} of {result.given} pairs in {len(result.shards)} shards: {args.out}")
    print(f"left out: {result.same_key} of the same key, {result.same_images} with the same images, ", end="")
    print(f"{result.over_quota} over quota")
    if not result.written:
        print("error: nothing was kept", file=sys.stderr)
        return 1
    return 0


def _quota(text: str) -> tuple[str, int]:
    category, _, count = text.partition("=")
    if not count.isdigit():
        raise ValueError(f"--quota {text}: write CATEGORY=N, such as add=1000")
    return category, int(count)
