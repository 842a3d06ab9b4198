"""Exports of a shard set: parquet, Hugging Face parquet with Image features, a folder of files, the released layout, or
the folders that trainers of editors read.

An export is written beside its place under a temporary name and renamed when it is whole; one for a store is written
here first. Dataset card, licence and provenance go with it: as README.md and, for each pair, as columns (in the
released layout, whose columns are fixed, in provenance.jsonl).
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from crispedit import inverse as inverses
from crispedit.images import decode_jpeg
from crispedit.record import content_key
from crispedit.shards import card, layout, storage
from crispedit.shards.decode import image_size
from crispedit.shards.index import Paths
from crispedit.shards.journal import columns
from crispedit.shards.layout import Pair
from crispedit.shards.pack import Folder, document, members
from crispedit.shards.read import read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.tables import IMAGE, SCORES, NumberedFiles, with_features, write_files

Target = Literal["parquet", "hf", "folder", "released", "trainers"]
TARGETS: tuple[Target, ...] = ("parquet", "hf", "folder", "released", "trainers")

Invert = Callable[[Sequence[inverses.InvertibleEdit]], list[inverses.Inverse | None]]
AT_ONCE = 64
"""Pairs whose inverses are asked for together."""

RELEASED_ROWS_PER_FILE = 256
"""Of the released CrispEdit-2M parquet files."""

RELEASED_TYPES = {"background": "background change", "motion": "motion change"}
"""Our categories whose name in the released data differs."""

_COLUMNS = [
    *columns(pa.string(), "key", "category", "instruction", "source_caption", "target_caption"),
    *columns(pa.int32(), "width", "height"),
    ("source", IMAGE),
    ("edited", IMAGE),
    ("mask", IMAGE),
    *columns(pa.string(), *card.PROVENANCE),
    ("scores", SCORES),
    ("meta", pa.string()),  # the whole JSON member
]
_RELEASED_COLUMNS = [("input_img", IMAGE), ("instruction", pa.string()), ("output_img", IMAGE), ("type", pa.string())]


def export(
    paths: Paths,
    to: Target,
    out: Folder,
    cache: Cache,
    categories: Sequence[str] | None = None,
    done: Callable[[], object] = lambda: None,
    invert: Invert | None = None,
) -> int:
    """Write the pairs of these sets or tars into a new folder, here or in a store; the number of pairs written. `done`
    is called after each pair. With `invert` (of `crispedit.inverse`), each pair that it can invert is followed by its
    inverse.

    ValueError if the folder exists and is not empty, or if there are no pairs. Damage stops the export: verify the
    set first.
    """
    place = os.fspath(out)
    if not storage.is_empty(place):
        raise ValueError(f"{place}: exists and is not an empty folder; give a new one")
    reader = read_shards(paths, decode=False, categories=categories, cache=cache)
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not len(reader):
        raise ValueError(f"{', '.join(map(str, given))}: no pairs{' of these categories' if categories else ''}")
    contents = card.Contents()

    def pairs() -> Iterator[Pair]:
        for pair in _with_inverses(reader, invert) if invert else reader:
            layout.check_key(pair.key)
            contents.add(layout.check_category(pair.category), pair.meta)
            yield pair
            done()

    write, files = _WRITERS[to]
    try:
        with storage.replaced_folder(place) as folder:
            write(pairs(), folder)
            made = f"exported by CrispEdit in the layout `{to}`"
            text = card.text(made, contents, card.sources_of([os.fspath(path) for path in given]), files)
            (folder / card.CARD).write_text(text, encoding="utf-8")
    finally:
        reader.close()
    return contents.categories.total()


def _with_inverses(pairs: Iterable[Pair], invert: Invert) -> Iterator[Pair]:
    """Each pair, and after it its inverse where it has one."""
    rest = iter(pairs)
    while some := list(islice(rest, AT_ONCE)):
        undone = invert([_invertible(pair) for pair in some])
        for pair, inverse in zip(some, undone, strict=True):
            yield pair
            if inverse is not None and not pair.meta.get("inverse_of"):
                yield inverted(pair, inverse)


def _invertible(pair: Pair) -> inverses.InvertibleEdit:
    source, edited = partial(decode_jpeg, pair.source_jpeg), partial(decode_jpeg, pair.edited_jpeg)
    return inverses.InvertibleEdit(pair.category, str(pair.meta.get("instruction") or ""), source, edited)


def inverted(pair: Pair, undone: inverses.Inverse) -> Pair:
    """The pair that undoes this one: the images swapped, the instruction rewritten, `inverse_of` naming this pair and
    `inverse_by` who wrote the instruction.

    What was measured of the one direction is not known of the other: its scores and hashes are left empty.
    """
    # A document that was read back holds the old key and category.
    meta = {name: value for name, value in pair.meta.items() if name not in ("key", "category")}
    for name, empty in (("scores", None), ("hashes", "")):
        meta[name] = [{"name": each["name"], "value": empty} for each in meta.get(name) or []]
    meta |= {
        "instruction": undone.instruction,
        "source_caption": pair.meta.get("target_caption"),
        "target_caption": pair.meta.get("source_caption"),
        "inverse_of": pair.key,
        "inverse_by": undone.by,
    }
    if "transform" in meta:  # of the pixels of the other direction
        meta["transform"] = None
    swapped = replace(pair, source_jpeg=pair.edited_jpeg, edited_jpeg=pair.source_jpeg, tokens=None)
    return replace(swapped, key=content_key("inverse", pair.key), category=undone.category, meta=meta)


def _write_parquet(pairs: Iterator[Pair], out: Path, features: bool) -> None:
    schema = pa.schema(_COLUMNS)
    write_files(out / "data", with_features(schema) if features else schema, map(_row, pairs))


def _write_released(pairs: Iterator[Pair], out: Path) -> None:
    """data/<type>_%05d.parquet of at most 256 rows, and provenance.jsonl with a line for each of theirs. The pairs
    come category by category, as the shards lie."""
    schema = with_features(pa.schema(_RELEASED_COLUMNS))
    data = out / "data"
    data.mkdir()
    writers: dict[str, NumberedFiles] = {}
    with open(out / "provenance.jsonl", "w", encoding="utf-8") as provenance, ExitStack() as closing:
        for pair in pairs:
            kind = RELEASED_TYPES.get(pair.category, pair.category)
            if kind not in writers:
                writers[kind] = NumberedFiles(data, f"{kind}_{{:05d}}.parquet", schema, RELEASED_ROWS_PER_FILE)
                closing.callback(writers[kind].close)
            row = {
                "input_img": {"bytes": pair.source_jpeg, "path": None},
                "instruction": pair.meta.get("instruction") or "",
                "output_img": {"bytes": pair.edited_jpeg, "path": None},
                "type": kind,
            }
            file, place = writers[kind].add(row)
            provenance.write(json.dumps({"file": file, "row": place, "key": pair.key, **_provenance(pair)}) + "\n")


def _write_folder(pairs: Iterator[Pair], out: Path) -> None:
    """<category>/<key>.source.jpg and so on, and a metadata.jsonl that Hugging Face's imagefolder understands."""
    with open(out / "metadata.jsonl", "w", encoding="utf-8") as lines:
        for pair in pairs:
            (out / pair.category).mkdir(exist_ok=True)
            stem = f"{pair.category}/{pair.key}"
            line = {
                "source_file_name": f"{stem}.{layout.SOURCE}",
                "edited_file_name": f"{stem}.{layout.EDITED}",
                "mask_file_name": f"{stem}.{layout.MASK}" if pair.mask_png is not None else None,
                "category": pair.category,
                "instruction": pair.meta.get("instruction") or "",
                **_provenance(pair),
            }
            for name, data in members(pair).items():
                if name != layout.TOKENS:
                    (out / f"{stem}.{name}").write_bytes(data)
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_trainers(pairs: Iterator[Pair], out: Path) -> None:
    """control/<key>.jpg (sources), target/<key>.jpg and target/<key>.txt (instructions), which ai-toolkit reads, and a
    metadata.csv with the columns of DiffSynth-Studio: image, edit_image and prompt."""
    for name in ("control", "target"):
        (out / name).mkdir()
    columns = ["image", "edit_image", "prompt", "key", "category", *card.PROVENANCE]
    with open(out / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for pair in pairs:
            control, target = (f"{folder}/{pair.key}.jpg" for folder in ("control", "target"))
            instruction = pair.meta.get("instruction") or ""
            (out / control).write_bytes(pair.source_jpeg)
            (out / target).write_bytes(pair.edited_jpeg)
            (out / f"target/{pair.key}.txt").write_text(instruction, encoding="utf-8")
            about = {"prompt": instruction, "key": pair.key, "category": pair.category, **_provenance(pair)}
            table.writerow({"image": target, "edit_image": control, **about})


def _row(pair: Pair) -> dict[str, Any]:
    width, height = image_size(layout.SOURCE, pair.source_jpeg)
    text = document(pair)
    meta = json.loads(text)
    return {
        "key": pair.key,
        "category": pair.category,
        **{name: meta.get(name) or None for name in ("instruction", "source_caption", "target_caption")},
        "width": width,
        "height": height,
        "source": {"bytes": pair.source_jpeg, "path": f"{pair.key}.{layout.SOURCE}"},
        "edited": {"bytes": pair.edited_jpeg, "path": f"{pair.key}.{layout.EDITED}"},
        "mask": None if pair.mask_png is None else {"bytes": pair.mask_png, "path": f"{pair.key}.{layout.MASK}"},
        **_provenance(pair),
        "scores": meta.get("scores", []),
        "meta": text,
    }


def _provenance(pair: Pair) -> dict[str, Any]:
    return {name: pair.meta.get(name) or None for name in card.PROVENANCE}


_WRITERS: dict[Target, tuple[Callable[[Iterator[Pair], Path], None], str]] = {
    "parquet": (partial(_write_parquet, features=False), "data/*.parquet"),
    "hf": (partial(_write_parquet, features=True), "data/*.parquet"),
    "folder": (_write_folder, "metadata.jsonl"),
    "released": (_write_released, "data/*.parquet"),
    "trainers": (_write_trainers, "metadata.csv"),
}
"""What writes each layout, and the pattern of its data files."""
