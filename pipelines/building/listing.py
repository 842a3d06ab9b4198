"""Listing: what a source contains, listed once. The driver finds the containers (tars, parquets, lists, slices of a
folder) by name; workers index each in one pass, into rows of the run's `listing` table.

A row holds whole photographs or pairs, at most `MOST_MEMBERS` of them, so a huge container is several rows, and no
process holds all of it.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crispedit.pipelines import sources
from crispedit.pipelines.sources import ENTRY, Entry, File, FolderSource, Skipped, pairs
from crispedit.pipelines.sources.pairs import AnySource, ImportedPair, PairsSource
from crispedit.shards.journal import Table, columns

Member = Entry | ImportedPair
MOST_MEMBERS = 10_000
"""Photographs or pairs of one row."""
FILES_TOGETHER = 1000
"""Files of a folder in one container."""
REST = "#"
"""The key of the row of files in no container; no file has this name, because "#" is escaped."""

PAIR = pa.struct(
    [
        ("uri", pa.string()),
        *columns(ENTRY, "source", "edited", "mask"),
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


def table(source: AnySource) -> Table:
    """The listing table of a source of this kind."""
    member = PAIR if isinstance(source, PairsSource) else ENTRY
    fields = [
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
    return Table(pa.schema(fields))


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
    here = list(itertools.islice(members, most))
    for number in itertools.count():
        more = list(itertools.islice(members, most))
        files = [file.uri for file in container.files] if number == 0 else []
        yield row(container.key, number, here, skipped, last=not more, files=files)
        if not more:
            return
        skipped.clear()
        here = more


def row(
    container: str, number: int = 0, members: Sequence[Member] = (), skipped: Skipped | None = None, **more: Any
) -> dict[str, Any]:
    """Slice `number` of a container as a row of the table; `more` are further columns."""
    return {
        "key": f"{container}:{number}" if number else container,
        "container": container,
        "slice": number,
        "last": True,
        "files": [],
        "rows": len(members),
        "members": [member.to_row() for member in members],
        "skipped": [{"kind": kind, "count": count} for kind, count in sorted((skipped or {}).items())],
        **more,
    }


def members(row: Mapping[str, Any]) -> list[Member]:
    """The photographs or pairs of a row."""
    return [(ImportedPair if "instruction" in member else Entry).from_row(member) for member in row["members"]]


def skipped(rows: Iterable[Mapping[str, Any]]) -> Skipped:
    """The skipped files of rows, from their column `skipped`."""
    total = Skipped()
    for row in rows:
        for kind in row["skipped"] or ():
            total.add(kind["kind"], kind["count"])
    return total
