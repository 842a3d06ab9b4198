"""crispedit verify: check a shard set against its manifest and index; exit status 1 if anything is wrong."""

import argparse
import json

from tqdm import tqdm

from crispedit import console, machine
from crispedit.shards.index import read_manifest
from crispedit.shards.remote import Cache
from crispedit.shards.verify import verify

SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("shards", help="folder or URL of a finished set")
    add("--deep", action="store_true", help="also decode every image and read every caption")
    add("--json", action="store_true", help="print the whole report as JSON")
    add("--threads", type=int, default=machine.cores(), help="shards read at once (default: one a core)")


def run(args: argparse.Namespace) -> int:
    total = len(read_manifest(args.shards)["shards"])
    with tqdm(total=total, unit="shard", disable=not console.shows_progress()) as bar:
        report = verify(args.shards, args.deep, args.threads, Cache(), lambda _: bar.update())
    if args.json:
        print(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
        return 0 if report.ok else 1
    print(f"{report.pairs} pairs in {report.shards} shards, {report.bytes / 1e6:.1f} MB")
    for category, count in sorted(report.categories.items()):
        print(f"  {category:<12} {count}")
    for name, count in sorted(report.unknown.items()):
        print(f"{name} is not known for {count} pairs")
    for problem in report.problems[:SHOWN]:
        print(problem)
    if len(report.problems) > SHOWN:
        print(f"... and {len(report.problems) - SHOWN} more; --json lists all")
    print("OK" if report.ok else f"{len(report.problems)} problems")
    return 0 if report.ok else 1
