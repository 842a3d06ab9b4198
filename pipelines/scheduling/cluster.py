"""The cluster as the scheduler sees it: where processes run, and the events about them. `Here` is this process."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from crispedit.pipelines.scheduling.flow import Stage
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Node
from crispedit.pipelines.scheduling.worker import BlockResult, Worker


class Ready(NamedTuple):
    """A process has loaded its stage."""

    process: Process


class Done(NamedTuple):
    """A block is done; `data` refers to its rows for the next stage."""

    block: Sent
    report: BlockResult
    data: Any


class Died(NamedTuple):
    """A process died: while loading (`block` is None) or working."""

    process: Process | None
    block: Sent | None
    node_lives: bool
    detail: str


class Lost(NamedTuple):
    """The data of a block was lost with a node before it could be read."""

    block: Sent


Event = Ready | Done | Died | Lost


class Cluster(Protocol):
    """Where processes run."""

    def now(self) -> float:
        """Seconds of a clock."""
        return time.monotonic()

    def nodes(self) -> Sequence[Node]:
        """The nodes that take work: alive and not draining."""

    def holds(self, stage: Stage) -> bool:
        """Whether the stage has processes of its own. Others run as tasks, in processes that all stages share."""

    def start(self, process: Process) -> None:
        """Start a process and load its stage; an event follows."""
        return None

    def stop(self, process: Process) -> None:
        """End a process."""
        return None

    def send(self, block: Sent) -> None:
        """Send a block to its process; an event follows."""

    def kill(self, block: Sent) -> None:
        """End the process that works on a block; `Died` follows."""
        return None

    def wait(self, seconds: float) -> Sequence[Event]:
        """The events so far; waits up to this long for the first."""


class Here(Cluster):
    """This process as a cluster of one CPU, without Ray. Every stage runs as tasks: a block is done when it is sent."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._workers = {stage.name: Worker(stage) for stage in stages}
        memory = max(stage.pool.memory_gb or 0.0 for stage in stages)
        self._node = Node("here", max(stage.pool.cpus for stage in stages), 0.0, memory)
        self._events: list[Event] = []

    def nodes(self) -> Sequence[Node]:
        return [self._node]

    def holds(self, stage: Stage) -> bool:
        return False

    def send(self, block: Sent) -> None:
        report, table = self._workers[block.stage.name].work(block.route, block.order, *block.data())
        self._events.append(Done(block, report, table))

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._events:
            time.sleep(seconds)
        events, self._events = self._events, []
        return events
