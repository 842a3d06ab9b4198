"""The names of a shard set: its files, the members of a sample, and what a key or category may look like.

docs/format.md describes the format; only this module spells its names.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

FORMAT_VERSION = 1

MANIFEST = "manifest.json"
INDEX = "index.parquet"
MAPPED_INDEX = "index.arrow"
WIDS_INDEX = "wids.json"
PARTS = "index"
"""Folder of the index parts, one parquet a shard; the appearance of a part is the commit of its shard."""

SOURCE = "source.jpg"
EDITED = "edited.jpg"
MASK = "mask.png"
META = "json"
TOKENS = "tokens.safetensors"
MEMBERS = (SOURCE, EDITED, MASK, META, TOKENS)
"""The members of a sample in the order in which they are written; the mask only where it is known, the tokens only in
a set that `crispedit tokenize` has written."""
REQUIRED = (SOURCE, EDITED, META)

_CATEGORY = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")

INDEX_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("member", pa.string()),  # what follows the key and its dot: "source.jpg", ...
        ("offset", pa.int64()),  # of the member's first byte in the tar
        ("size", pa.int64()),
        ("xxh3_64", pa.uint64()),
        ("category", pa.string()),
        ("width", pa.int32()),  # in pixels; null for JSON and tokens
        ("height", pa.int32()),
    ]
)
"""The columns of the index: a row a member."""


@dataclass(frozen=True)
class Pair:
    """One sample, its images as stored. `meta` is what its JSON member says, or is to say: see `pack.document`."""

    key: str
    category: str
    source_jpeg: bytes
    edited_jpeg: bytes
    mask_png: bytes | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    tokens: bytes | None = None
    """What a model's tokenizers made of the pair, as safetensors; see `crispedit.editmgt.stored`."""


def shard_name(category: str, number: int) -> str:
    return f"crispedit-{category}-{number:06d}.tar"


def part_name(shard: str) -> str:
    """Where the index part of a shard lies, relative to the set's folder."""
    return f"{PARTS}/{shard.removesuffix('.tar')}.parquet"


def check_key(key: str) -> str:
    """The key, if it can name files. ValueError otherwise.

    WebDataset cuts a member's name at the first dot of its base name, so a key with a dot would be read back as another
    key; a slash would make folders, and two Unicode spellings of one text would be one file on some file systems.
    """
    if not key or any(c in "./\\" or ord(c) < 32 for c in key):
        raise ValueError(f"key {key!r}: must not be empty nor contain a dot, slash or control character")
    if unicodedata.normalize("NFC", key) != key:
        raise ValueError(f"key {key!r}: not in Unicode normal form C")
    if len(key.encode()) > 200:
        raise ValueError(f"key {key[:40]!r}...: longer than 200 bytes of UTF-8")
    return key


def check_keys(keys: pa.Array | pa.ChunkedArray) -> None:
    """Every key can name files and comes once. ValueError otherwise."""
    plain = pc.match_substring_regex(keys, r"^[A-Za-z0-9_-]{1,200}$")
    for key in keys.filter(pc.invert(plain)).to_pylist():
        check_key(key)
    if (twice := repeated(keys)) is not None:
        raise ValueError(f"key {twice['values']!r}: planned {twice['counts']} times; a key names one pair")


def repeated(keys: pa.Array | pa.ChunkedArray) -> dict[str, Any] | None:
    """A key that comes more than once ("values") and how often ("counts"); None if there is none."""
    if pc.count_distinct(keys).as_py() == len(keys):
        return None
    counts = keys.value_counts()
    return dict(counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py())


def check_category(category: str) -> str:
    """The category, if it can be part of a shard's name. ValueError otherwise."""
    if not _CATEGORY.fullmatch(category):
        raise ValueError(f"category {category!r}: use lower-case letters, digits, '-' and '_' only")
    return category


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary(final: Path) -> Path:
    """A temporary name beside the final one, unique to each writer."""
    return final.with_name(f".{final.name}.{uuid4().hex}.tmp")


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole and on the disk: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = temporary(path)
    try:
        with aside.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # of a write: a full disk, which the reader should find by this name
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)
