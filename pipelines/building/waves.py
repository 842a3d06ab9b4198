"""Waves: fixed sets of whole source containers, each with folders of its own in every table.

A wave's record is `RUN/waves/wave-000012.json`: its rows of the listing, how far its photographs have been judged, and,
once it is finished, under which recipe and with what result. So a resumed run skips finished waves, and planning a wave
reads only that wave's folders.
"""

import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit.outcome import Damaged
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Route, Row, Stage
from crispedit.recipe import Pool
from crispedit.shards import journal
from crispedit.shards.journal import Table

COMPACT = "compact"
FOLDER = "waves"


def name(number: int) -> str:
    return f"wave-{number:06d}"


@dataclass(frozen=True)
class Judged:
    """What the verdicts on a wave's photographs depend on."""

    policy: str
    """Digest of the bounds."""
    before: str
    """Digest of the photographs that earlier waves keep: this wave's copies of them are duplicates."""
    parts: list[str]
    """The parts of the wave's `curate` that were read."""
    digest: str
    """Digest of the photographs kept up to and including this wave."""


@dataclass(frozen=True)
class Finished:
    """The record of a finished wave, under one recipe."""

    recipe: str
    """Digest of the settings that decide what there is to do."""
    judged: str
    parts: dict[str, int]
    """Bytes of each part of its tables, by path: a missing or changed part reopens the wave."""
    kept: dict[str, int] = field(default_factory=dict)
    """Jobs with a passing candidate, by category, for quotas."""
    editors: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """By category and editor: the numbers of measured and of passing candidates."""
    errors: int = 0
    transient: int = 0
    """Rows with an error, and how many of them the next run retries."""


@dataclass(frozen=True)
class Wave:
    """The record of one wave of a run."""

    number: int
    listing: list[str]
    """Keys of its rows of the listing."""
    photographs: int
    drawn: list[str] | None = None
    """For a sample: the uris of its members."""
    shares: dict[str, dict[str, float]] | None = None
    """By category and editor: its share of the jobs, if they are shared (`edit.share`). Recorded before the wave's
    first edit, and never changed."""
    judged: Judged | None = None
    finished: Finished | None = None

    @property
    def name(self) -> str:
        return name(self.number)


class Waves(list[Wave]):
    """The waves of a run, in order; changes by these methods are written at once."""

    def __init__(self, run: Run) -> None:
        self.folder = run.root / FOLDER
        super().__init__(map(_read, sorted(self.folder.glob("wave-*.json"))))

    def add(self, listing: list[str], photographs: int, drawn: list[str] | None = None) -> Wave:
        wave = Wave(len(self), listing, photographs, drawn)
        self.append(wave)
        self._write(wave)
        return wave

    def change(self, number: int, **changes: Any) -> None:
        """Replace fields of a wave's record: `judged`, `shares` or `finished`."""
        wave = replace(self[number], **changes)
        if self[number] != wave:
            self[number] = wave
            self._write(wave)

    def _write(self, wave: Wave) -> None:
        with journal.replaced(self.folder / f"{wave.name}.json") as out:
            out.write(json.dumps(asdict(wave)).encode())


def _read(path: Path) -> Wave:
    try:
        row = json.loads(path.read_text())
        parts = {"judged": Judged, "finished": Finished}
        records = {name: kind(**row[name]) for name, kind in parts.items() if row[name] is not None}
        return Wave(**{**row, **records})
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(
            f"{path} is damaged ({error}): it says which photographs its wave holds. Restore it from a copy, or build "
            "into a new directory"
        ) from None


@dataclass
class Compacting(Stage):
    """Merges the parts of a finished wave: its rows are folders of the run, each with its table."""

    name = COMPACT
    pool = Pool(batch=1)
    root: Path

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        for row in rows:
            journal.compact(self.root / row["key"], pickle.loads(row["table"]), self.root)
        return rows

    @staticmethod
    def route(wave: int) -> Route:
        return Route(COMPACT, wave, (COMPACT,), pa.schema([("key", pa.string()), ("table", pa.binary())]), list)

    @staticmethod
    def row(folder: str, table: Table) -> Row:
        return {"key": folder, "table": pickle.dumps(table)}
