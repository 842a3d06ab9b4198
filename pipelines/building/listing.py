"""Listing: what a source contains, listed once. The driver finds the containers (tars, parquets, lists, slices of a
folder) by name; workers index each in one pass, into rows of the run's `listing` table.

A row holds whole photographs or pairs, at most `MOST_MEMBERS` of them, so a huge container is several rows, and no
process holds all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from crispedit.pipelines import sources
from crispedit.pipelines.sources import ENTRY, Entry, File, FolderSource, Skipped, pairs
from crispedit.pipelines.sources.pairs import AnySource, ImportedPair, PairsSource
from crispedit.shards.journal import Table, columns

MOST_MEMBERS = 10_000
"""Photographs or pairs of one row."""
FILES_TOGETHER = 1000
"""Files of a folder in one container."""
REST = "#"
"""The key of the row of files in no container; no file has this name, because "#" is escaped."""

PAIR = pa.struct(
    [
        ("uri", pa.string()),
        ("source", ENTRY),
        ("edited", ENTRY),
        ("mask", ENTRY),
        *columns(pa.string(), "instruction", "category", "source_caption", "target_caption", "dataset", "licence"),
        *columns(pa.string(), "id", "error"),
    ]
)
"""Pairs in a table."""


@dataclass(frozen=True)
class Container:
    """Files that are indexed together: one tar, parquet or list, or some files of a folder."""

    key: str
    """The uri of its first file."""
    files: tuple[File, ...]

    @property
    def bytes(self) -> int | None:
        """Bytes of its files, if the listing gave sizes."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    def to_row(self) -> dict[str, Any]:
        """A row of texts, integers, None, and lists of dicts of them."""
        return {"key": self.key, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Container:
        return cls(row["key"], tuple(File(**file) for file in row["files"]))


def table(source: AnySource) -> Table:
    """The listing table of a source of this kind."""
    member = PAIR if isinstance(source, PairsSource) else ENTRY
    return Table(
        pa.schema(
            [
                *columns(pa.string(), "key", "container"),
                ("slice", pa.int32()),
                ("last", pa.bool_()),
                ("files", pa.list_(pa.string())),
                ("rows", pa.int32()),
                ("members", pa.list_(member)),
                ("skipped", pa.list_(pa.struct([("kind", pa.string()), ("count", pa.int64())]))),
                ("error", pa.string()),
                ("transient", pa.bool_()),
            ]
        )
    )


def containers(
    source: AnySource, listed: Collection[str] = (), most: int = MOST_MEMBERS
) -> tuple[list[Container], Skipped]:
    """The containers of a source by name, without the files whose uris are `listed`, and the files skipped by their
    names. No file is opened. A container has at most this many files of a folder.

    ValueError if the place does not exist, or a pattern matches nothing.
    """
    left_out = Skipped()
    known = frozenset(listed)
    if isinstance(source, PairsSource):
        files = pairs.files(source, left_out, known)
    else:
        files = sources.fitting(source, sources.files(source.path, left_out), left_out)
        files = [file for file in files if file.uri not in known]
    size = min(FILES_TOGETHER, most) if isinstance(source, FolderSource) else 1
    groups = [tuple(files[start : start + size]) for start in range(0, len(files), size)]
    return [Container(group[0].uri, group) for group in groups], left_out


def index(source: AnySource, container: Container, folder: str, most: int = MOST_MEMBERS) -> Iterator[dict[str, Any]]:
    """The rows of a container, each of at most this many members, in one pass over its bytes. Huge row groups are split
    into `folder`, the run's `listing`.

    An unreadable member gets an error. Transient errors are raised: index the container again. ValueError if a column
    is not what the recipe says.
    """
    skipped = Skipped()
    members: Any
    if isinstance(source, PairsSource):
        (file,) = container.files
        members = pairs.of_file(source, file, skipped, folder=folder)
    else:
        members = sources.photographs(source, container.files, skipped, folder_of_run=folder)
    number = 0
    here = list(itertools.islice(members, most))
    while here or number == 0:
        more = list(itertools.islice(members, most))
        yield {
            "key": container.key if number == 0 else f"{container.key}:{number}",
            "container": container.key,
            "slice": number,
            "last": not more,
            "files": [file.uri for file in container.files] if number == 0 else [],
            "rows": len(here),
            "members": [member.to_row() for member in here],
            "skipped": _counts(skipped),
        }
        skipped.clear()
        number, here = number + 1, more


def rest(left_out: Skipped) -> dict[str, Any]:
    """The row of files skipped by their names."""
    return {
        "key": REST,
        "container": REST,
        "slice": 0,
        "last": True,
        "files": [],
        "rows": 0,
        "members": [],
        "skipped": _counts(left_out),
    }


def _counts(skipped: Skipped) -> list[dict[str, Any]]:
    return [{"kind": kind, "count": count} for kind, count in sorted(skipped.items())]


def members(row: Mapping[str, Any]) -> list[Entry] | list[ImportedPair]:
    """The photographs or pairs of a row."""
    if any("instruction" in member for member in row["members"]):
        return [ImportedPair.from_row(member) for member in row["members"]]
    return [Entry.from_row(member) for member in row["members"]]


def nothing(source: AnySource, left_out: Skipped) -> str:
    """The message for a source without photographs or pairs."""
    return sources.nothing(source.path, source.kind, left_out)


def skipped(rows: Iterable[Mapping[str, Any]]) -> Skipped:
    """The skipped files of rows, from their column `skipped`."""
    total = Skipped()
    for row in rows:
        for kind in row["skipped"] or ():
            total.add(kind["kind"], kind["count"])
    return total
