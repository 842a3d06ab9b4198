"""An entry: one photograph of a source, its name and where its bytes are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from crispedit.shards.journal import columns


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
