"""crispedit duplicates: list the pairs of a shard set whose source shows the same as an earlier one, by CLIP."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from crispedit import console, images, semantic
from crispedit.shards.read import read_shards

SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", help="sets, or plain tars; paths, globs, braces or URLs")
    parser.add_argument("--least", type=float, default=0.95, help="cosine from which two pictures are duplicates")
    parser.add_argument("--model", default="embedded", help="an open_clip architecture; see docs/sharing.md")
    parser.add_argument("--pretrained", default="", help="a tag of that architecture, or a file of its weights")
    parser.add_argument("--output", type=Path, help="a file for the duplicates, a line of JSON each")


def run(args: argparse.Namespace) -> int:
    from crispedit import clip

    if not 0 < args.least <= 1:
        raise ValueError(f"--least {args.least}: must be over 0, and 1 at most")
    model = clip.load(args.model, args.pretrained)
    if model is None:
        raise ValueError(f"--model {args.model}: its weights cannot be loaded or downloaded")
    reader = read_shards(args.shards, decode=False)
    keys: dict[str, None] = {}
    sources: dict[str, int] = {}  # pairs of one photograph are not duplicates of each other
    of: list[int] = []
    with tempfile.TemporaryFile(prefix="crispedit-") as file:
        for pair in tqdm(reader, unit="pair", disable=not console.shows_progress()):
            source = str(pair.meta.get("source_key") or pair.key)
            if source not in sources:
                sources[source] = len(sources)
                (vector,) = model.images([images.decode_jpeg(pair.source_jpeg)])
                file.write(vector.numpy().astype(np.float16).tobytes())
            keys[pair.key] = None
            of.append(sources[source])
        reader.close()
        if not sources:
            raise ValueError(f"{' '.join(args.shards)}: no pairs")
        file.flush()
        vectors = np.memmap(file, np.float16, "r").reshape(len(sources), -1)
        parents, cosines = semantic.repeats(vectors, args.least)
    first = {number: key for key, number in reversed(list(zip(keys, of, strict=True)))}
    duplicates = [
        {"key": key, "duplicate_of": first[int(parents[number])], "cosine": round(float(cosines[number]), 4)}
        for key, number in zip(keys, of, strict=True)
        if parents[number] >= 0
    ]
    if args.output is not None:
        args.output.write_text("".join(f"{json.dumps(one)}\n" for one in duplicates), "utf-8")
    for one in duplicates[:SHOWN]:
        print(f"{one['key']} repeats {one['duplicate_of']} ({one['cosine']:.3f})")
    if len(duplicates) > SHOWN:
        print(f"... and {len(duplicates) - SHOWN} more; --output lists all")
    print(
        f"{len(duplicates)} of {len(keys)} pairs repeat an earlier source; {int((parents >= 0).sum())} of "
        f"{len(sources)} sources"
    )
    return 0
