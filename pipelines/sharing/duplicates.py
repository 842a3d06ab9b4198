"""crispedit duplicates: list the pairs of a shard set whose source shows the same as an earlier one, by CLIP."""

from __future__ import annotations

import argparse
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from crispedit import console, images, semantic
from crispedit.parts import needs
from crispedit.record import Image
from crispedit.shards.read import read_shards

if TYPE_CHECKING:
    from crispedit.clip import ClipModel

SHOWN = 50
AT_ONCE = 32
"""Sources whose embeddings are computed together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", help="sets, or plain tars; paths, globs, braces or URLs")
    parser.add_argument("--least", type=float, default=0.95, help="cosine from which two pictures are duplicates")
    parser.add_argument("--model", default="embedded", help="an open_clip architecture; see docs/sharing.md")
    parser.add_argument("--pretrained", default="", help="a tag of that architecture, or a file of its weights")
    parser.add_argument("--output", type=Path, help="a file for the duplicates, a line of JSON each")


def run(args: argparse.Namespace) -> int:
    if not 0 < args.least <= 1:
        raise ValueError(f"--least {args.least}: must be over 0, and 1 at most")
    if (lacking := needs("faiss", "open_clip", "torch", extra="models,semantic")) is not None:
        raise ValueError(lacking)
    from crispedit import clip

    model = clip.load(args.model, args.pretrained)
    if model is None:
        raise ValueError(f"--model {args.model}: its weights cannot be loaded or downloaded")
    with TemporaryFile(prefix="crispedit-") as vectors, TemporaryFile("w+", prefix="crispedit-") as keys:
        numbers, sources = _embed(args.shards, model, vectors, keys)
        if not sources:
            raise ValueError(f"{' '.join(args.shards)}: no pairs")
        embeddings = np.memmap(vectors, np.float16, "r").reshape(sources, -1)
        parents, cosines = semantic.repeats(embeddings, args.least)
        first: dict[int, str] = dict.fromkeys(parents[parents >= 0].tolist(), "")
        for key, number in _pairs(keys, numbers):
            if first.get(number) == "":
                first[number] = key
        repeats = (
            (key, first[int(parents[number])], float(cosines[number]))
            for key, number in _pairs(keys, numbers)
            if parents[number] >= 0
        )
        amount = _report(repeats, args.output)
    if amount > SHOWN:
        print(f"... and {amount - SHOWN} more; --output lists all")
    repeated = int((parents >= 0).sum())
    print(f"{amount} of {len(numbers)} pairs repeat an earlier source; {repeated} of {sources} sources")
    return 0


def _report(repeats: Iterator[tuple[str, str, float]], output: Path | None) -> int:
    """Print the first repeats (key, the key it repeats, cosine) and write all as JSON lines. Returns their number."""
    amount = 0
    with output.open("w", encoding="utf-8") if output is not None else nullcontext() as out:
        for key, original, cosine in repeats:
            amount += 1
            if amount <= SHOWN:
                print(f"{key} repeats {original} ({cosine:.3f})")
            if out is not None:
                out.write(json.dumps({"key": key, "duplicate_of": original, "cosine": round(cosine, 4)}) + "\n")
    return amount


def _embed(shards: Sequence[str], model: ClipModel, vectors: IO[bytes], keys: IO[str]) -> tuple[array[int], int]:
    """Write the fp16 embedding of each source once, and the key of each pair as a line. The number of each pair's
    source (pairs of one photograph are not duplicates of each other), and how many sources there are."""
    sources: dict[str, int] = {}
    numbers = array("q")
    waiting: list[Image] = []

    def write() -> None:
        vectors.write(model.images(waiting).numpy().astype(np.float16).tobytes())
        waiting.clear()

    with closing(read_shards(list(shards), decode=False)) as reader:
        for pair in tqdm(reader, unit="pair", disable=not console.shows_progress()):
            source = str(pair.meta.get("source_key") or pair.key)
            if source not in sources:
                sources[source] = len(sources)
                waiting.append(images.decode_jpeg(pair.source_jpeg))
                if len(waiting) == AT_ONCE:
                    write()
            numbers.append(sources[source])
            keys.write(f"{pair.key}\n")
    if waiting:
        write()
    vectors.flush()
    return numbers, len(sources)


def _pairs(keys: IO[str], numbers: array[int]) -> Iterator[tuple[str, int]]:
    """(key, number of the source) of each pair."""
    keys.seek(0)
    return zip((line.rstrip("\n") for line in keys), numbers, strict=True)
