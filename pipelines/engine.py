"""The engine: where the work of a build runs, on Ray or in this process.

Both run the same flow with the same scheduler and journal, so they give the same tables. Between stages, rows carry
references and encoded bytes, never decoded arrays. A plan that cannot be scheduled is refused, with the arithmetic,
before anything starts.
"""

import logging
import math
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

import crispedit
from crispedit import machine, managed
from crispedit.pipelines import failure
from crispedit.pipelines.progress import Progress
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.scheduling import scheduler
from crispedit.pipelines.scheduling.cluster import Cluster, Here
from crispedit.pipelines.scheduling.flow import Block, Explode, Flow, Route, commit, gpus_of
from crispedit.pipelines.scheduling.flow import Row as Row
from crispedit.pipelines.scheduling.flow import Stage as Stage
from crispedit.shards.journal import Table


@dataclass
class Work:
    """The `Flow` of one step: its remaining rows, its stages and its table.

    `wire` is the schema of rows between stages; `explode` gives the rows to commit for one processed row.
    """

    step: str
    folder: Path
    table: Table
    plan: Sequence[Row]
    stages: Sequence[Stage]
    wire: pa.Schema
    explode: Explode
    _taken: int = 0
    _done: int = 0

    @cached_property
    def _route(self) -> Route:
        committing = partial(commit, folder=self.folder.absolute(), table=self.table, explode=self.explode)
        return Route(self.step, 0, tuple(stage.name for stage in self.stages), self.wire, committing)

    def take(self, stage: str, rows: int) -> Block | None:
        if not self.waiting(stage):
            return None
        self._taken, first = min(self._taken + rows, len(self.plan)), self._taken
        return Block(self._route, self.plan[first : self._taken])

    def waiting(self, stage: str) -> int:
        return len(self.plan) - self._taken if stage == self.stages[0].name else 0

    def remaining(self, stage: str) -> float:
        return len(self.plan) - self._done

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        self._done += len(rows)

    def finished(self) -> bool:
        return self._done == len(self.plan)


def run(work: Work, engine: EngineSpec) -> None:
    """Do the work, if there is any. Call inside `cluster(engine)`."""
    if work.plan:
        run_flow(work, engine)


def run_flow(flow: Flow, engine: EngineSpec, run: Path | None = None, log_json: bool = False) -> None:
    """Run a flow. Call inside `cluster(engine)`. `run`: the directory that stores progress for `crispedit status`;
    `log_json`: log lines are JSON."""
    progress = Progress(run, log_json)
    cluster: Cluster = Here(flow.stages)
    if engine.kind == "ray":
        from crispedit.pipelines.scheduling.on_ray import RayCluster

        cluster = RayCluster(flow.stages)
    running = scheduler.Scheduler(flow, cluster, engine, progress)
    try:
        running.run()
    finally:
        progress.end(running)
        managed.stop_all()  # servers of this process; those of Ray's processes end with them


@contextmanager
def cluster(engine: EngineSpec) -> Iterator[None]:
    """The Ray cluster for the work inside this context: the one that is named, else a new one that is stopped
    afterwards.

    Another Ray on this machine is neither joined by accident nor stopped.
    """
    if engine.kind == "inprocess":
        yield
        return
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    joined = engine.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with failure.last_word():
        try:
            if joined:
                host, _, port = joined.rpartition(":")
                if port.isdigit() and "/" not in host:  # Ray itself waits ten minutes for a machine that is away
                    socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()
                ray.init(address=joined, runtime_env=_runtime_env(), **quiet)
            else:
                # Inherited, not in a runtime_env, with which tasks could not use Ray's prestarted processes.
                os.environ["PYTHONPATH"] = _python_path()
                ray.init(address="local", include_dashboard=False, **_share(engine), **quiet)
        except Exception as error:  # Ray raises many kinds of errors here
            how = f"be joined at {joined}" if joined else "be started"
            raise ValueError(f"Ray cannot {how}: {' '.join(str(error).split())[:500]}; {failure.AGAIN}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray installed its own handler
        try:
            yield
        finally:
            ray.shutdown()


def _share(engine: EngineSpec) -> dict[str, int]:
    """The cores and memory of our own Ray: those of this process, where Ray would take the whole machine."""
    memory = machine.memory_bytes()
    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free if shared.is_dir() else memory
    return {
        "num_cpus": engine.cpus or machine.cores(),
        "_memory": memory * 7 // 10,
        "object_store_memory": min(memory * 3 // 10, room * 9 // 10),
    }


def check_room(option: str, actors: int, cpus: float, gpus: float) -> None:
    """ValueError if the cluster is too small for this many actors; Ray would wait forever."""
    import ray

    there = ray.cluster_resources()
    for kind, needed in (("CPU", actors * cpus), ("GPU", actors * gpus)):
        has = there.get(kind, 0.0)
        if needed > has + 1e-6:
            raise ValueError(f"{option}: they need {needed:g} {kind}, and the cluster has {has:g}")


def _runtime_env() -> dict[str, Any] | None:
    """The environment with which workers import the driver's code, also from a checkout that is not installed (a job
    submitted with `--working-dir` has it already), and use the same instructions on every processor."""
    variables = {name: os.environ[name] for name in machine.alike() if name in os.environ}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        variables["PYTHONPATH"] = _python_path()
    return {"env_vars": variables} if variables else None


def _python_path() -> str:
    here = str(Path(crispedit.__file__).parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def placement(step: str, stages: Sequence[Stage], resources: Mapping[str, float]) -> list[int]:
    """Actors of each stage on a cluster with these resources. ValueError, with the arithmetic, if they do not fit.

    Pools with `actors: null` share evenly what the others leave.
    """
    amounts: dict[str, Callable[[Stage], float]] = {
        "CPU": lambda stage: stage.pool.cpus,
        "GPU": gpus_of,
        "GB": lambda stage: stage.pool.memory_gb or 0.0,
    }
    least = [(stage.pool.actors or 1, stage) for stage in stages]
    has = {kind: resources.get(kind, 0.0) for kind in amounts} | {"GB": resources.get("memory", 0.0) / 2**30}
    needs = {kind: sum(count * of(stage) for count, stage in least) for kind, of in amounts.items()}
    if any(needs[kind] > has[kind] + 1e-6 for kind in amounts):
        arithmetic = [
            f"  {count} x {stage.name}: " + ", ".join(f"{count * of(stage):g} {kind}" for kind, of in amounts.items())
            for count, stage in least
        ]
        raise ValueError(
            f"{step} cannot be scheduled: it needs at least {needs['CPU']:g} CPU, {needs['GPU']:g} GPU and "
            f"{needs['GB']:g} GB, the cluster has {has['CPU']:g} CPU, {has['GPU']:g} GPU and {has['GB']:.1f} GB.\n"
            + "\n".join(arithmetic)
            + "\nLower the actors, cpus, gpus or memory_gb of these pools, or use a larger cluster "
            "(engine.cpus=N for one of our own)."
        )
    sharing = {kind: sum(s.pool.actors is None and of(s) > 0 for s in stages) for kind, of in amounts.items()}

    def more(stage: Stage) -> int:
        shares = [(has[k] - needs[k]) / sharing[k] / of(stage) for k, of in amounts.items() if of(stage) > 0]
        return math.floor(min(shares) + 1e-6)

    return [stage.pool.actors or 1 + more(stage) for stage in stages]
