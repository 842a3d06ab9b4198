"""crispedit decontaminate: find copies of benchmark pictures in a shard set; exit status 1 if there are any."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from crispedit import console, copies, images
from crispedit.shards.read import read_shards

SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", help="sets, or plain tars; paths, globs, braces or URLs")
    parser.add_argument("--against", nargs="+", required=True, help="local folders of benchmark pictures")
    parser.add_argument("--output", type=Path, help="a file for the copies, a line of JSON each")


def run(args: argparse.Namespace) -> int:
    known = copies.Known(copies.read(args.against))
    counts: Counter[str] = Counter()
    matches = list(find(args.shards, known, counts))
    if not counts["pairs"]:
        raise ValueError(f"{' '.join(args.shards)}: no pairs")
    if args.output is not None:
        args.output.write_text("".join(f"{json.dumps(copy, ensure_ascii=False)}\n" for copy in matches), "utf-8")
    for copy in matches[:SHOWN]:
        print(f"{copy['key']} {copy['side']}: {copy['closeness']:.3f} {copy['benchmark']}")
    if len(matches) > SHOWN:
        print(f"... and {len(matches) - SHOWN} more; --output lists all")
    pairs = len({copy["key"] for copy in matches})
    print(f"{pairs} of {counts['pairs']} pairs hold a copy of one of {len(known.names)} benchmark pictures")
    if counts["plain"] or known.plain:
        print(
            f"not compared, without detail: {counts['plain']} pictures of the set, {len(known.plain)} of the benchmark"
        )
    return 1 if matches else 0


def find(shards: list[str], known: copies.Known, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Each picture of a set that is a copy: {"key", "side", "benchmark", "closeness"}. Counts what it compares:
    `pairs`, and `plain` pictures without detail."""
    with closing(read_shards(shards, decode=False)) as reader:
        for pair in tqdm(reader, unit="pair", disable=not console.shows_progress()):
            counts["pairs"] += 1
            for side, jpeg in (("source", pair.source_jpeg), ("edited", pair.edited_jpeg)):
                fingerprint = copies.fingerprint(cv2.cvtColor(images.decode_jpeg(jpeg), cv2.COLOR_RGB2GRAY))
                copy = None if fingerprint is None else known.find(fingerprint)
                counts["plain"] += fingerprint is None
                if copy is not None:
                    yield {"key": pair.key, "side": side, "benchmark": copy.name, "closeness": copy.closeness}
