"""An entry: one photograph of a source, what to call it and where its bytes are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph of a source. All fields survive a parquet."""

    uri: str
    """Unique in the source and independent of where it lies: `a/b.jpg`, `x.tar#member`, `x.parquet#row`."""
    path: str
    """The file: a URL, an absolute local path as `escape` writes it, or, for what was split off a huge row group, a
    path relative to the run."""
    offset: int | None = None
    """Where a tar member's bytes start; None for a whole file or a row."""
    size: int | None = None
    row_group: int | None = None
    row: int | None = None
    """The row within its row group."""
    column: str | None = None
    caption: str | None = None
    dataset: str | None = None
    licence: str | None = None
    error: str | None = None
    """Why there is nothing to read, where the listing already knows."""

    @property
    def unit(self) -> tuple[str, int] | None:
        """Rows of one unit share one decoding of their row group; None for what is read by itself."""
        return None if self.row_group is None else (self.path, self.row_group)

    def to_row(self) -> dict[str, Any]:
        """Strings, integers and None."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Entry:
        """The entry of `to_row`; other columns of a table are not its business."""
        return cls(**{name: row[name] for name in cls.__slots__})


ENTRY = pa.struct(
    [
        ("uri", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("row_group", pa.int32()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("caption", pa.string()),
        ("dataset", pa.string()),
        ("licence", pa.string()),
        ("error", pa.string()),
    ]
)
"""Entries in a table."""
