"""What an executor carries out: rows that wait for stages, the way they travel, and what becomes of them.

A build is one `Flow`. It knows its tables; the executor (`pipelines.scheduler`) knows processes and nodes. Neither
knows the other's part: the executor asks for rows that a stage can work on now, and tells what was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from crispedit.outcome import Transient, describe
from crispedit.recipe import Pool

Row = dict[str, Any]


class Stage(Protocol):
    """What one pool of processes does. Pickles; `load` is called once in the process that will work."""

    name: str
    pool: Pool
    gpus: float

    def load(self) -> None: ...

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The same rows in order, with more columns. Rows with an `error` never arrive; an exception becomes one."""
        ...


def gpus_of(stage: Stage) -> float:
    """GPUs that each process of a stage holds."""
    return stage.gpus if stage.pool.gpus is None else stage.pool.gpus


class Quarantined(Transient):
    """A row that has killed, or hung, the processes that worked on it."""


def failed(row: Row, error: Exception) -> Row:
    """A row whose stage raised, or that was quarantined."""
    said = f"quarantined: {error}" if isinstance(error, Quarantined) else describe(error)
    return {**row, "error": said}


def never(row: Row) -> bool:
    """No result is worth another attempt."""
    return False


@dataclass(frozen=True)
class Route:
    """How the rows of one step and wave travel: through which stages, in which form, and what commits them.

    A route pickles: its callables run in the workers. Rows of two routes are never in one block.
    """

    step: str
    wave: int
    stages: tuple[str, ...]
    """Names of the flow's stages, in order, at least one."""
    wire: pa.Schema
    """Rows between stages. Bytes are allowed: these rows travel from worker to worker."""
    commit: Callable[[Sequence[Row]], Sequence[Row]]
    """Commits rows as one part, in the worker of the last stage. Returns light rows for `Flow.done`: no bytes."""
    key: str = "key"
    failed: Callable[[Row, Exception], Row] = failed
    transient: Callable[[Row], bool] = never
    """Whether a processed row should be tried again later."""


@dataclass(frozen=True)
class Block:
    """Some rows of one route, as planned: keys, texts and references to bytes, no bytes."""

    route: Route
    rows: Sequence[Row]


class Flow(Protocol):
    """The work of a build. One thread calls these, and each call returns at once: what takes long is done in a thread
    of the flow's own, while `waiting` is 0. Every row that was taken comes back through `done`."""

    @property
    def stages(self) -> Sequence[Stage]:
        """All stages of the build, in the order of the work."""
        ...

    def take(self, stage: str, rows: int) -> Block | None:
        """At most so many rows of one route that begins at this stage, oldest wave first. None: none wait now."""
        ...

    def waiting(self, stage: str) -> int:
        """How many rows `take` could give now."""
        ...

    def remaining(self, stage: str) -> float:
        """About how many rows this stage still has to do in the whole build, those it works on included."""
        ...

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        """These rows of a route are committed; they are what `route.commit` returned."""
        ...

    def finished(self) -> bool:
        """Nothing waits, nothing is out, and nothing will come."""
        ...
