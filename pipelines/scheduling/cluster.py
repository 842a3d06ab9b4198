"""The cluster as the scheduler sees it: where processes run, and the events about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from crispedit.pipelines.scheduling.flow import Stage
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Node
from crispedit.pipelines.scheduling.worker import BlockResult


@dataclass(frozen=True)
class Ready:
    """A process has loaded its stage."""

    process: Process


@dataclass(frozen=True)
class Done:
    """A block is done; `data` refers to its rows for the next stage."""

    block: Sent
    report: BlockResult
    data: Any


@dataclass(frozen=True)
class Died:
    """A process died: while loading (`block` is None) or working."""

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
        """The nodes that take work: alive and not draining."""
        ...

    def holds(self, stage: Stage) -> bool:
        """Whether the stage has processes of its own. Others run as tasks, in processes that all stages share."""
        ...

    def start(self, process: Process) -> None:
        """Start a process and load its stage; an event follows."""
        ...

    def stop(self, process: Process) -> None: ...

    def send(self, block: Sent) -> None:
        """Send a block to its process; an event follows."""
        ...

    def kill(self, block: Sent) -> None:
        """End the process that works on a block; `Died` follows."""
        ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """The events so far; waits up to this long for the first."""
        ...
