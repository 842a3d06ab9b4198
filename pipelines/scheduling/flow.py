"""The interface between a build and its executor: rows that wait for stages, their routes, and their results.

A build is one `Flow`. It knows its tables; the executor (`scheduler.py`) knows processes and nodes. The executor
asks for rows that a stage can process now, and reports what was committed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from crispedit.outcome import Transient, describe, is_transient
from crispedit.recipe import Pool
from crispedit.shards import journal
from crispedit.shards.journal import Table

Row = dict[str, Any]
Explode = Callable[[Row], Sequence[Row]]
"""Gives the rows of a table for a processed row."""


class Stage(Protocol):
    """The work of one pool of processes. It pickles."""

    name: str
    pool: Pool
    gpus: float = 0.0

    def load(self) -> None:
        """Prepare for work, such as loading a model; called once in each working process."""
        return None

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The same rows in order, with more columns. Rows with an `error` never arrive; an exception becomes one."""


def gpus_of(stage: Stage) -> float:
    """GPUs that each process of a stage holds."""
    return stage.gpus if stage.pool.gpus is None else stage.pool.gpus


class Quarantined(Transient):
    """A row whose processing repeatedly killed or hung the process."""


def failed(row: Row, error: Exception) -> Row:
    """The row with an error: its stage raised, or it was quarantined."""
    message = f"quarantined: {error}" if isinstance(error, Quarantined) else describe(error)
    return {**row, "error": message, "transient": is_transient(error)}


def never(row: Row) -> bool:
    """No row is tried again."""
    return False


def commit(
    rows: Sequence[Row], *, folder: Path, table: Table, explode: Explode, root: Path | None = None, heavy: str = ""
) -> Sequence[Row]:
    """Commit processed rows to a table as one part (`journal.commit`). Returns a light row for each, with its
    `key` and its `committed` rows, without their column `heavy`."""
    exploded = [explode(row) for row in rows]
    committed = journal.commit(folder, table, [one for several in exploded for one in several], root)
    light = iter([{name: value for name, value in row.items() if name != heavy} for row in committed])
    return [
        {"key": row[table.key], "committed": [next(light) for _ in several]}
        for row, several in zip(rows, exploded, strict=True)
    ]


@dataclass(frozen=True)
class Route:
    """The route of one step's rows in one wave: their stages, their schema, and how they are committed.

    A route pickles, because its callables run in workers. A block has rows of one route only.
    """

    step: str
    wave: int
    stages: tuple[str, ...]
    """Names of the flow's stages, in order, at least one."""
    wire: pa.Schema
    """Rows between stages. Bytes are allowed: these rows travel from worker to worker."""
    commit: Callable[[Sequence[Row]], Sequence[Row]]
    """Commits rows as one part, in the last stage's worker. Returns light rows (without bytes) for `Flow.done`."""
    failed: Callable[[Row, Exception], Row] = failed
    transient: Callable[[Row], bool] = never
    """Whether a processed row should be tried again later."""


class Block(NamedTuple):
    """Planned rows of one route: keys, texts and references to bytes, without the bytes."""

    route: Route
    rows: Sequence[Row]


class Flow(Protocol):
    """The work of a build. One thread calls these methods, and each returns at once: slow work runs in the flow's own
    thread, while `waiting` is 0. Every taken row comes back through `done`."""

    @property
    def stages(self) -> Sequence[Stage]:
        """All stages of the build, in the order of the work."""

    def take(self, stage: str, rows: int) -> Block | None:
        """At most this many rows of one route that begins at this stage, oldest wave first; None if none wait."""

    def waiting(self, stage: str) -> int:
        """The number of rows that `take` could give now."""

    def remaining(self, stage: str) -> float:
        """About how many rows of the whole build this stage has left, including those in work."""

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        """Report committed rows of a route, as `route.commit` returned them."""

    def finished(self) -> bool:
        """Whether no rows wait, are in work, or will come."""
