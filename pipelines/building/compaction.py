"""Compaction: merges the parts of a finished wave into one per table."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from crispedit.pipelines.scheduling.flow import Route, Row
from crispedit.recipe import Pool
from crispedit.shards import journal
from crispedit.shards.journal import Table

COMPACT = "compact"
ALONE = Pool(batch=1)


@dataclass
class Compacting:
    """Merges the parts of a finished wave."""

    root: Path
    name: str = COMPACT
    pool: Pool = ALONE
    gpus: float = 0.0
    wire = pa.schema([("folder", pa.string()), ("table", pa.binary())])

    def load(self) -> None:
        pass

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        for row in rows:
            journal.compact(self.root / row["folder"], pickle.loads(row["table"]), self.root)
        return rows


def route(wave: int) -> Route:
    """The route of a finished wave's folders."""
    return Route(COMPACT, wave, (COMPACT,), Compacting.wire, _compacted)


def folder(place: str, table: Table) -> Row:
    """The row of a folder, by its path in the run."""
    return {"folder": place, "table": pickle.dumps(table)}


def _compacted(rows: Sequence[Row]) -> Sequence[Row]:
    return [{"key": row["folder"]} for row in rows]
