"""What is listed of a source: its files, its photographs (where their bytes are), and counts of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from crispedit.pipelines.sources.names import suffix_of
from crispedit.shards.journal import columns


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source: its name in the listing, its path, and its size if known."""

    uri: str
    path: str
    """A URL, or an absolute local path as `escape` writes it."""
    size: int | None = None
    """In bytes, if listing gives it at no cost."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph of a source. All fields can be stored in parquet."""

    uri: str
    """Unique in the source, and independent of the source's location: `a/b.jpg`, `x.tar#member`, `x.parquet#row`."""
    path: str
    """The file: a URL, an absolute local path as `escape` writes it, or, for images split off a huge row group, a path
    relative to the run."""
    offset: int | None = None
    """The offset of a tar member's bytes; None for a whole file or a row."""
    size: int | None = None
    row_group: int | None = None
    row: int | None = None
    """The row within its row group."""
    column: str | None = None
    caption: str | None = None
    dataset: str | None = None
    licence: str | None = None
    error: str | None = None
    """Why it cannot be read, if the listing already knows."""

    @property
    def unit(self) -> tuple[str, int] | None:
        """Rows of one unit are decoded together; None for entries that are read alone."""
        return None if self.row_group is None else (self.path, self.row_group)

    def to_row(self) -> dict[str, Any]:
        """The entry as strings, integers and None."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Entry:
        """The entry of `to_row`; other columns are ignored."""
        return cls(**{name: row[name] for name in cls.__slots__})


ENTRY = pa.struct(
    [
        *columns(pa.string(), "uri", "path"),
        *columns(pa.int64(), "offset", "size"),
        ("row_group", pa.int32()),
        ("row", pa.int64()),
        *columns(pa.string(), "column", "caption", "dataset", "licence", "error"),
    ]
)
"""Entries in a table."""


class Skipped(Counter[str]):
    """Counts of skipped files, by kind."""

    def file(self, name: str) -> None:
        suffix = suffix_of(name)
        usual = len(suffix) <= 16 and suffix.isprintable()
        self.add((suffix or "without suffix") if usual else "of unusual suffix")

    def add(self, kind: str, count: int = 1) -> None:
        """Count files of a kind; the number of kinds is limited, whatever the names."""
        self[kind if kind in self or len(self) < 100 else "of other kinds"] += count

    def text(self) -> str:
        """As text: "skipped: 4 files (2 .txt, 1 hidden, 1 without suffix)"; "" if there are none."""
        if not (total := self.total()):
            return ""
        most = sorted(self.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{count} {kind}" for kind, count in most[:8]]
        if rest := sum(count for _, count in most[8:]):
            parts.append(f"{rest} others")
        return f"skipped: {total} file{'s' * (total != 1)} ({', '.join(parts)})"
