"""Step: what a build does to the rows of a wave, one table after the other; and a wave as the steps see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from crispedit.outcome import describe, is_transient
from crispedit.pipelines.flow import Row, Stage
from crispedit.pipelines.pairs import ImportedPair
from crispedit.pipelines.records import Candidate, Comparison, Photograph, Request
from crispedit.pipelines.run import Identity, Run
from crispedit.pipelines.sources import Entry
from crispedit.shards import journal
from crispedit.shards.journal import Table

Member = Entry | ImportedPair
"""What a source lists: a photograph, or an existing pair."""


@dataclass(slots=True)
class Subject:
    """A kept photograph with all that has been made of it."""

    key: str
    photographs: list[Photograph] = field(default_factory=list)
    """Its files: one, but for imported edits, several of which may have the same source."""
    requests: dict[str, Request] = field(default_factory=dict)
    candidates: dict[str, dict[str, Candidate]] = field(default_factory=dict)
    """By job and key."""
    comparisons: dict[str, Comparison] = field(default_factory=dict)

    def jobs(self) -> dict[str, Request]:
        """Each job once: the request of the first key."""
        found: dict[str, Request] = {}
        for key in sorted(self.requests):
            request = self.requests[key]
            if request.job_key is not None:
                found.setdefault(request.job_key, request)
        return found


@dataclass
class ActiveWave:
    """A wave at work: its members, its committed rows, and what is out with a process."""

    number: int
    members: dict[str, Member]
    read: bool = False
    """Whether its members and photographs have been read."""
    photographs: dict[str, Photograph] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)
    """The kept photographs, once the wave is judged."""
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The photograph and job of each candidate."""
    judged: str | None = None
    """Digest of the verdicts on its photographs."""
    full: frozenset[str] | None = None
    """The categories of which no more is asked; None: not known yet."""
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By category and editor: its share of the jobs; empty where every editor makes a candidate of each job."""
    out: set[tuple[str, str]] = field(default_factory=set)
    """(step, key) of rows that wait for a process or are with one."""
    offered: set[tuple[str, str]] = field(default_factory=set)
    """(step, key) of all rows that were tried in this run of the command: each is, once."""
    retry_errors: bool = False

    def candidate(self, key: str) -> Candidate | None:
        """A candidate by its key, if its photograph is kept."""
        source, job = self.owners.get(key, ("", ""))
        return self.subjects[source].candidates[job][key] if source in self.subjects else None

    def again(self, row: Photograph | Request | Candidate | Comparison) -> bool:
        """Whether a committed row is to be made once more."""
        return row.error is not None and bool(row.transient or self.retry_errors)

    def waits(self, keys: Sequence[str]) -> bool:
        """Whether one of these candidates is with a process."""
        return any((step, key) in self.out for key in keys for step in ("edit", "score"))


@dataclass(frozen=True)
class Todo:
    """A row that waits for a stage, as the route that begins there carries it."""

    stages: tuple[str, ...]
    row: Row


class Step(ABC):
    """One step of a run. Its stages make and measure in worker processes; all else is the driver's and costs little."""

    name: ClassVar[str]
    key: ClassVar[str] = "key"
    wire: pa.Schema
    """Rows on their way through the stages."""
    table: Table

    def __init__(self, run: Run) -> None:
        self.run, self.recipe = run, run.recipe

    @property
    @abstractmethod
    def stages(self) -> list[Stage]:
        """The pools of processes, in the order in which rows pass them."""

    @abstractmethod
    def identity(self) -> Identity:
        """What decides the bytes that the step writes: its part of the run's fingerprint."""

    @abstractmethod
    def load(self, wave: ActiveWave, row: Row) -> None:
        """Take a committed row into the wave. Rows of subjects that are not kept are left aside."""

    @abstractmethod
    def todo(self, wave: ActiveWave, subject: Subject) -> Iterator[Todo]:
        """What is left to do for a photograph, as far as its rows tell by now. Pure policy over committed rows."""

    def subject(self, wave: ActiveWave, row: Row) -> str:
        """The key of the photograph that a committed row belongs to."""
        return str(row["source_key"])

    def failed(self, row: Row, error: Exception) -> Row:
        """A row whose stage raised, or that a process died of."""
        return {**row, "error": describe(error), "transient": is_transient(error)}

    def transient(self, row: Row) -> bool:
        """Whether a processed row is worth another attempt."""
        return bool(row.get("transient"))

    def folder(self, wave: str) -> Path:
        return self.run.folder(self.name) / wave

    def commit(self, wave: str) -> Callable[[Sequence[Row]], Sequence[Row]]:
        """What commits processed rows of a wave, in a worker: gives a light row for each, with its `key` and the
        `committed` rows."""
        return partial(
            _commit,
            folder=self.folder(wave),
            root=self.run.root,
            table=self.table,
            key=self.key,
            rows_of=self.explode,
        )

    @staticmethod
    def explode(row: Row) -> Sequence[Row]:
        """The rows to commit for one processed row."""
        return [row]


def _commit(
    rows: Sequence[Row],
    *,
    folder: Path,
    root: Path,
    table: Table,
    key: str,
    rows_of: Callable[[Row], Sequence[Row]],
) -> Sequence[Row]:
    made = [rows_of(row) for row in rows]
    committed = iter(journal.commit(folder, table, [row for several in made for row in several], root))
    return [
        {key: row[key], "committed": [next(committed) for _ in several]}
        for row, several in zip(rows, made, strict=True)
    ]


def folder_rows(folder: Path, table: Table) -> list[dict[str, Any]]:
    """The committed rows of one wave."""
    return journal.read(folder, table).to_pylist() if folder.exists() else []
