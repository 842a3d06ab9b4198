"""Pools: the scheduler's state of each stage: waiting rows, processes, and measured speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from crispedit.pipelines.scheduling.flow import Route, Row, Stage, gpus_of
from crispedit.pipelines.scheduling.room import Need
from crispedit.pipelines.scheduling.worker import BlockResult, Order

UNKNOWN_LOAD_SECONDS = 10.0


@dataclass(frozen=True)
class Piece:
    """Rows of one route that wait for a stage."""

    route: Route
    plan: Sequence[Row]
    """The rows as the flow gave them, in case their data is lost with a node."""
    data: Any = None
    """Reference to a table of the previous stage's results; None: the plan is the data."""
    first: int = 0
    """Index of the first of these rows in the data."""
    bytes_per_row: float = 0.0
    attempt: int = 1
    due: float = 0.0
    deaths: int = 0
    suspect: bool = False
    """Whether one of these rows may have killed a process; such rows share a block with no others."""
    avoid: str | None = None
    """The node where that happened."""

    def __len__(self) -> int:
        return len(self.plan)

    def part(self, start: int, end: int) -> Piece:
        return replace(self, plan=self.plan[start:end], first=self.first + start)


@dataclass(eq=False)
class Process:
    """A process of a stage, from its start."""

    stage: Stage
    node: str
    started: float
    ready: bool = False
    free_since: float = 0.0
    block: Sent | None = None
    leaving: bool = False
    """Whether it gets no more blocks."""
    heir: StagePool | None = None
    """The stage for which it makes room."""


@dataclass(eq=False)
class Sent:
    """A block in work, in a process or (for a stage without its own processes) a task."""

    pool: StagePool
    route: Route
    pieces: Sequence[Piece]
    order: Order
    process: Process | None
    since: float
    hung: bool = False
    """Whether its process is killed for taking too long."""

    @property
    def stage(self) -> Stage:
        return self.pool.stage

    @property
    def rows(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    @property
    def avoid(self) -> str | None:
        return self.pieces[0].avoid if self.pieces else None

    def data(self) -> list[Any]:
        """Of each piece: its rows as a table, or a reference to a table."""
        return [
            pa.Table.from_pylist(list(piece.plan), schema=self.route.wire) if piece.data is None else piece.data
            for piece in self.pieces
        ]


class Queue:
    """Pieces in order, with their rows and bytes counted."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.rows = 0
        self.bytes = 0.0

    @property
    def head(self) -> Piece | None:
        return self._pieces[0] if self._pieces else None

    def append(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._count(piece, 1)

    def put_back(self, pieces: Sequence[Piece]) -> None:
        self._pieces.extendleft(reversed(pieces))
        for piece in pieces:
            self._count(piece, 1)

    def take(self, rows: int) -> list[Piece]:
        """The first rows, of one route; a suspect piece comes alone and complete."""
        taken: list[Piece] = []
        while rows > 0 and (head := self.head) is not None:
            if taken and (head.suspect or head.route is not taken[0].route):
                break
            self._count(self._pieces.popleft(), -1)
            if head.suspect:
                return [head]
            if len(head) > rows:
                self.put_back([head.part(rows, len(head))])
                head = head.part(0, rows)
            taken.append(head)
            rows -= len(head)
        return taken

    def _count(self, piece: Piece, sign: int) -> None:
        self.rows += sign * len(piece)
        self.bytes += sign * len(piece) * piece.bytes_per_row


@dataclass(eq=False)
class StagePool:
    """The scheduler's state of one stage."""

    stage: Stage
    held: bool
    queue: Queue = field(default_factory=Queue)
    later: list[Piece] = field(default_factory=list)
    next: StagePool | None = None
    processes: list[Process] = field(default_factory=list)
    blocks: int = 0
    """Blocks in processes or tasks, without those that only record an error."""
    working: int = 0
    """Rows of these blocks."""
    recent_seconds: float = 0.0
    recent_rows: float = 0.0
    largest: int = 0
    bytes_per_row: float = 0.0
    load_seconds: float | None = None
    loading_deaths: int = 0
    probing: bool = False
    waiting_since: float | None = None
    busy_seconds: float = 0.0
    held_seconds: float = 0.0
    loading_seconds: float = 0.0
    done_rows: int = 0
    again_rows: int = 0

    @cached_property
    def need(self) -> Need:
        return Need(self.stage.pool.cpus, gpus_of(self.stage), self.stage.pool.memory_gb or 0.0)

    @property
    def row_seconds(self) -> float | None:
        """Measured seconds per row; None before the first block."""
        return self.recent_seconds / self.recent_rows if self.recent_rows else None

    @property
    def load(self) -> float:
        return UNKNOWN_LOAD_SECONDS if self.load_seconds is None else self.load_seconds

    @property
    def staying(self) -> list[Process]:
        return [process for process in self.processes if not process.leaving]

    def learn(self, report: BlockResult) -> None:
        """Update the measurements with a block; each block halves the weight of the earlier ones."""
        self.recent_seconds = self.recent_seconds / 2 + report.seconds
        self.recent_rows = self.recent_rows / 2 + report.rows
        self.largest = max(self.largest, report.rows)
        self.busy_seconds += report.seconds
        self.loading_seconds += report.load_seconds
        if not self.held:  # a task holds its CPUs while it works
            self.held_seconds += report.load_seconds + report.seconds
        self.load_seconds = max(report.load_seconds, self.load_seconds or 0.0)
        self.again_rows += len(report.again)
        self.done_rows += report.rows - len(report.again)
        self.bytes_per_row = max(self.bytes_per_row, report.bytes / max(1, report.rows))
