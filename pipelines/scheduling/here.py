"""This process as the cluster: it works on blocks one after another, starts no processes and does not import Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa

from crispedit.pipelines.scheduling.cluster import Done, Event
from crispedit.pipelines.scheduling.flow import Stage
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Node
from crispedit.pipelines.scheduling.worker import Worker


class Here:
    """A `cluster.Cluster` of one CPU that runs every stage as tasks."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._workers = {stage.name: Worker(stage) for stage in stages}
        self._cpus = max(stage.pool.cpus for stage in stages)
        self._memory = max(stage.pool.memory_gb or 0.0 for stage in stages)
        self._events: list[Event] = []

    def now(self) -> float:
        return time.monotonic()

    def nodes(self) -> Sequence[Node]:
        return [Node("here", self._cpus, 0.0, self._memory)]

    def holds(self, stage: Stage) -> bool:
        return False

    def send(self, block: Sent) -> None:
        data = [
            pa.Table.from_pylist(list(piece.plan), schema=block.route.wire) if piece.data is None else piece.data
            for piece in block.pieces
        ]
        report, table = self._workers[block.stage.name].work(block.route, block.order, *data)
        self._events.append(Done(block, report, table))

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._events:
            time.sleep(seconds)
        events, self._events = self._events, []
        return events

    def start(self, process: Process) -> None:
        raise AssertionError("every stage runs as tasks here")

    def stop(self, process: Process) -> None:
        raise AssertionError("nothing was started here")

    def kill(self, block: Sent) -> None:
        raise AssertionError("a block is done as soon as it is sent here")
