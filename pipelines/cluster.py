"""The cluster as the scheduler sees it: where processes run, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from crispedit.pipelines.flow import Stage
from crispedit.pipelines.pool import Process, Sent
from crispedit.pipelines.room import Node
from crispedit.pipelines.worker import BlockResult


@dataclass(frozen=True)
class Ready:
    """A process has loaded its stage."""

    process: Process


@dataclass(frozen=True)
class Done:
    """A block is done; `data` refers to the rows that are passed on."""

    block: Sent
    report: BlockResult
    data: Any


@dataclass(frozen=True)
class Died:
    """A process died: while it loaded (`block` is None), or at work."""

    process: Process | None
    block: Sent | None
    node_lives: bool
    detail: str


@dataclass(frozen=True)
class Lost:
    """The data of a block was lost with a node before it could be read."""

    block: Sent


Event = Ready | Done | Died | Lost


class Cluster(Protocol):
    """Where processes run."""

    def now(self) -> float: ...

    def nodes(self) -> Sequence[Node]:
        """The nodes that take work: alive, and not being drained."""
        ...

    def holds(self, stage: Stage) -> bool:
        """Whether the stage has processes of its own. Others run as tasks, in processes that all stages share."""
        ...

    def start(self, process: Process) -> None:
        """Start and load it; an event follows."""
        ...

    def stop(self, process: Process) -> None: ...

    def send(self, block: Sent) -> None:
        """Have a block worked on; an event follows."""
        ...

    def kill(self, block: Sent) -> None:
        """End the process that works on a block; `Died` follows."""
        ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened; returns when something has, or after so long."""
        ...
