"""Ray as the cluster: processes are actors on chosen nodes; stages without processes of their own run as tasks.

Ray restarts and retries nothing; the scheduler handles deaths. Data between stages stays in the object stores; the
driver only sees reports, through one `ray.wait` over everything in flight.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crispedit.pipelines.scheduling.cluster import Died, Done, Event, Lost, Ready
from crispedit.pipelines.scheduling.flow import Route, Stage, gpus_of
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Node
from crispedit.pipelines.scheduling.worker import BlockResult, Order, Worker

LOOK_SECONDS = 5.0
"""Seconds between looks at the nodes."""
ROUTES = 256
"""Routes kept in the object store."""
KINDS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""Ray's names of a resource, in options and in nodes."""


class RayCluster:
    """A `cluster.Cluster` on the joined Ray cluster."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._shared = {stage.name: ray.put(cloudpickle.dumps(stage)) for stage in stages if not self.holds(stage)}
        self._actors: dict[Process, Any] = {}
        self._flying: dict[Any, Process | Sent] = {}
        self._data: dict[Any, Any] = {}
        self._routes: dict[int, tuple[Route, Any]] = {}
        self._taken: dict[tuple[str, str], float] = {}
        self._tasks_cpus = 0.0
        self._nodes: list[Node] = []
        self._looked = float("-inf")

    def now(self) -> float:
        return time.monotonic()

    def holds(self, stage: Stage) -> bool:
        return stage.pool.actors is not None or gpus_of(stage) > 0

    def nodes(self) -> Sequence[Node]:
        if self.now() - self._looked > LOOK_SECONDS:
            self._looked = self.now()
            leaving = ray._private.state.state.get_draining_nodes()
            free = ray._private.state.available_resources_per_node()
            self._nodes = [
                self._node(node["NodeID"], node["Resources"], free.get(node["NodeID"], {}))
                for node in ray.nodes()
                if node["Alive"] and node["NodeID"] not in leaving
            ]
        return self._nodes

    def _node(self, name: str, total: Mapping[str, float], free: Mapping[str, float]) -> Node:
        """A node with the resources that we may use: all but what others hold, such as a model server's GPUs. The
        smallest number seen counts for those, because resources that we give back count as held for a while."""

        def ours(kind: str, unit: float = 1.0) -> float:
            held = sum(_resources(process.stage)[kind] or 0.0 for process in self._actors if process.node == name)
            held += self._tasks_cpus if kind == "num_cpus" else 0.0
            resource = KINDS[kind]
            others = max(0.0, total.get(resource, 0.0) - free.get(resource, 0.0) - held)
            self._taken[name, kind] = min(others, self._taken.get((name, kind), others))
            return (total.get(resource, 0.0) - self._taken[name, kind]) / unit

        return Node(name, ours("num_cpus"), ours("num_gpus"), ours("memory", 2**30))

    def start(self, process: Process) -> None:
        stage = process.stage
        actor = ray.remote(_Actor).options(
            **_resources(stage),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(process.node, soft=False),
        )
        self._actors[process] = actor.remote(cloudpickle.dumps(stage))
        self._flying[self._actors[process].load.remote()] = process

    def stop(self, process: Process) -> None:
        actor = self._actors.pop(process, None)
        if actor is not None:
            ray.kill(actor)

    def send(self, block: Sent) -> None:
        data = [
            pa.Table.from_pylist(list(piece.plan), schema=block.route.wire) if piece.data is None else piece.data
            for piece in block.pieces
        ]
        route = self._route(block.route)
        if block.process is not None:
            work = self._actors[block.process].work.options(num_returns=2)
            report, table = work.remote(route, block.order, *data)
        else:
            idle = block.order.error is not None
            resources = {"num_cpus": 0} if idle else _resources(block.stage)
            if (other := self._other_node(block.avoid)) is not None:
                resources["scheduling_strategy"] = NodeAffinitySchedulingStrategy(other, soft=True)
            task = ray.remote(_task).options(num_returns=2, max_retries=0, **resources)
            shared = None if idle else self._shared[block.stage.name]
            report, table = task.remote(shared, route, block.order, *data)
            self._tasks_cpus += resources["num_cpus"]
        self._flying[report] = block
        self._data[report] = table

    def kill(self, block: Sent) -> None:
        if block.process is not None:
            ray.kill(self._actors[block.process])
        else:
            (report,) = [ref for ref, flying in self._flying.items() if flying is block]
            ray.cancel(report, force=True)

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._flying:
            time.sleep(seconds)
            return []
        ready, rest = ray.wait(list(self._flying), timeout=seconds, fetch_local=False)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        return [event for ref in ready if (event := self._event(ref)) is not None]

    def _event(self, ref: Any) -> Event | None:
        what = self._flying.pop(ref)
        data = self._data.pop(ref, None)
        process = what if isinstance(what, Process) else what.process
        block = None if isinstance(what, Process) else what
        if block is not None and process is None and block.order.error is None:
            self._tasks_cpus -= block.stage.pool.cpus
        if isinstance(what, Process) and what not in self._actors:
            return None  # it was stopped while loading
        try:
            report = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError) and block is not None:
                return Lost(block)
            raise error.cause from error  # errors there are raised here, as if in this process
        except ObjectLostError:
            assert block is not None
            return Lost(block)
        except (NodeDiedError, TaskUnschedulableError) as error:
            return self._died(process, block, False, error)
        except (RayActorError, WorkerCrashedError, OutOfMemoryError, TaskCancelledError) as error:
            return self._died(process, block, process is None or self._lives(process.node), error)
        if block is None:
            assert process is not None
            return Ready(process)
        return Done(block, report, data)

    def _died(self, process: Process | None, block: Sent | None, lives: bool, error: Exception) -> Died:
        if process is not None:
            self._actors.pop(process, None)
        return Died(process, block, lives, str(error))

    def _lives(self, node: str) -> bool:
        """Whether the node lives now: its death is known before that of its actors."""
        self._looked = float("-inf")
        return any(there.name == node for there in self.nodes())

    def _other_node(self, avoid: str | None) -> str | None:
        return None if avoid is None else next((n.name for n in self._nodes if n.name != avoid), None)

    def _route(self, route: Route) -> Any:
        """A reference to the route, which each node fetches once."""
        if id(route) not in self._routes:
            if len(self._routes) >= ROUTES:
                del self._routes[next(iter(self._routes))]
            self._routes[id(route)] = route, ray.put(cloudpickle.dumps(route))
        return self._routes[id(route)][1]


class _Actor:
    """A process for one stage."""

    def __init__(self, pickled: bytes) -> None:
        self._worker = Worker(pickle.loads(pickled))

    def load(self) -> None:
        self._worker.load()

    def work(self, route: bytes, order: Order, *data: pa.Table) -> tuple[BlockResult, pa.Table | None]:
        return self._worker.work(_route(route), order, *data)


def _task(stage: bytes | None, route: bytes, order: Order, *data: pa.Table) -> tuple[BlockResult, pa.Table | None]:
    """Process a block; the loaded stage stays in this process for later tasks."""
    worker = Worker(None) if stage is None else _worker(stage)
    return worker.work(_route(route), order, *data)


@lru_cache(maxsize=32)
def _worker(pickled: bytes) -> Worker:
    return Worker(pickle.loads(pickled))


@lru_cache(maxsize=32)
def _route(pickled: bytes) -> Route:
    return pickle.loads(pickled)


def _resources(stage: Stage) -> dict[str, Any]:
    memory = None if stage.pool.memory_gb is None else stage.pool.memory_gb * 2**30
    return {"num_cpus": stage.pool.cpus, "num_gpus": gpus_of(stage), "memory": memory}
