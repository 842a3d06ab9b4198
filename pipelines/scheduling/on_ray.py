"""Ray as the cluster: processes are actors on chosen nodes; stages without processes of their own run as tasks.

Ray restarts and retries nothing; the scheduler handles deaths. Data between stages stays in the object stores; the
driver only sees reports, through one `ray.wait` over everything in flight.
"""

import pickle
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from ray import exceptions as errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crispedit.pipelines.scheduling.cluster import Cluster, Died, Done, Event, Lost, Ready
from crispedit.pipelines.scheduling.flow import Stage, gpus_of
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Node
from crispedit.pipelines.scheduling.worker import BlockResult, Worker

LOOK_SECONDS = 5.0
"""Seconds between looks at the nodes."""
ROUTES = 256
"""Routes kept in the object store."""
DEATHS = (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError, errors.TaskCancelledError)
"""Errors of a process that died, perhaps with its node."""
KINDS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""Ray's names of a resource, in options and in nodes."""


class RayCluster(Cluster):
    """The joined Ray cluster."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._shared = {stage.name: ray.put(cloudpickle.dumps(stage)) for stage in stages if not self.holds(stage)}
        self._route = lru_cache(ROUTES)(ray.put)
        """A reference to a route; each node fetches it once."""
        self._actors: dict[Process, Any] = {}
        self._flying: dict[Any, tuple[Process | Sent, Any]] = {}
        """By reference to a report: whose it is, and a reference to the block's rows for the next stage."""
        self._taken: dict[tuple[str, str], float] = {}
        self._nodes: list[Node] = []
        self._looked = float("-inf")

    def holds(self, stage: Stage) -> bool:
        return stage.pool.actors is not None or gpus_of(stage) > 0

    def nodes(self) -> Sequence[Node]:
        if self.now() - self._looked > LOOK_SECONDS:
            self._looked = self.now()
            leaving = ray._private.state.state.get_draining_nodes()
            free = ray._private.state.available_resources_per_node()
            sent = [block for block, _ in self._flying.values() if isinstance(block, Sent)]
            tasks = [block for block in sent if block.process is None and block.order.error is None]
            cpus = sum(block.stage.pool.cpus for block in tasks)
            self._nodes = [
                self._node(node["NodeID"], node["Resources"], free.get(node["NodeID"], {}), cpus)
                for node in ray.nodes()
                if node["Alive"] and node["NodeID"] not in leaving
            ]
        return self._nodes

    def _node(self, name: str, total: Mapping[str, float], free: Mapping[str, float], tasks_cpus: float) -> Node:
        """A node with the resources that we may use: all but what others hold, such as a model server's GPUs. The
        smallest number seen counts for those, because resources that we give back count as held for a while."""

        def ours(kind: str) -> float:
            held = sum(_resources(process.stage)[kind] or 0.0 for process in self._actors if process.node == name)
            held += tasks_cpus if kind == "num_cpus" else 0.0
            whole = total.get(KINDS[kind], 0.0)
            others = max(0.0, whole - free.get(KINDS[kind], 0.0) - held)
            self._taken[name, kind] = min(others, self._taken.get((name, kind), others))
            return whole - self._taken[name, kind]

        return Node(name, ours("num_cpus"), ours("num_gpus"), ours("memory") / 2**30)

    def start(self, process: Process) -> None:
        actor = ray.remote(Worker).options(
            **_resources(process.stage),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(process.node, soft=False),
        )
        self._actors[process] = actor.remote(process.stage)
        self._flying[self._actors[process].load.remote()] = process, None

    def stop(self, process: Process) -> None:
        if process in self._actors:
            ray.kill(self._actors.pop(process))

    def send(self, block: Sent) -> None:
        work = self._route(block.route), block.order, *block.data()
        if block.process is not None:
            report, table = self._actors[block.process].work.options(num_returns=2).remote(*work)
        else:
            idle = block.order.error is not None
            resources = {"num_cpus": 0} if idle else _resources(block.stage)
            other = next((node.name for node in self._nodes if block.avoid not in (None, node.name)), None)
            if other is not None:
                resources["scheduling_strategy"] = NodeAffinitySchedulingStrategy(other, soft=True)
            task = ray.remote(_task).options(num_returns=2, max_retries=0, **resources)
            report, table = task.remote(None if idle else self._shared[block.stage.name], *work)
        self._flying[report] = block, table

    def kill(self, block: Sent) -> None:
        if block.process is not None:
            ray.kill(self._actors[block.process])
        else:
            (report,) = [ref for ref, (flying, _) in self._flying.items() if flying is block]
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
        what, data = self._flying.pop(ref)
        process, block = (what, None) if isinstance(what, Process) else (what.process, what)
        if what is process and process not in self._actors:
            return None  # it was stopped while loading
        try:
            report = ray.get(ref)
        except (errors.RayTaskError, errors.ObjectLostError) as error:
            cause = error.cause if isinstance(error, errors.RayTaskError) else error
            if isinstance(cause, errors.ObjectLostError) and block is not None:
                return Lost(block)
            raise cause from error  # errors there are raised here, as if in this process
        except (errors.NodeDiedError, errors.TaskUnschedulableError, *DEATHS) as error:
            lives = isinstance(error, DEATHS) and (process is None or self._lives(process.node))
            if process is not None:
                self._actors.pop(process, None)
            return Died(process, block, lives, str(error))
        return Ready(what) if isinstance(what, Process) else Done(what, report, data)

    def _lives(self, node: str) -> bool:
        """Whether the node lives now: its death is known before that of its actors."""
        self._looked = float("-inf")
        return any(there.name == node for there in self.nodes())


def _task(stage: bytes | None, *work: Any) -> tuple[BlockResult, pa.Table | None]:
    """Process a block; the loaded stage stays in this process for later tasks."""
    return (Worker(None) if stage is None else _worker(stage)).work(*work)


@lru_cache(maxsize=32)
def _worker(pickled: bytes) -> Worker:
    return Worker(pickle.loads(pickled))


def _resources(stage: Stage) -> dict[str, Any]:
    memory = None if stage.pool.memory_gb is None else stage.pool.memory_gb * 2**30
    return {"num_cpus": stage.pool.cpus, "num_gpus": gpus_of(stage), "memory": memory}
