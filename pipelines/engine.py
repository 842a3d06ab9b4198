"""The engine: carries a step's plan through its stages and commits parts, on Ray or in this process.

Both run the same stages on the same rows and commit through the same journal, so they give the same tables. Between
stages rows carry references and encoded bytes, never decoded arrays. What is special here answers known failures of
such systems: work is planned from what is not yet committed (a resume repeats nothing); a row that raises becomes an
error row; a row that kills its process is quarantined after two deaths; a plan that could never be scheduled is
refused with its arithmetic before anything starts.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import crispedit
from crispedit.outcome import describe, each
from crispedit.pipelines.recipe import Engine
from crispedit.recipe import Pool
from crispedit.record import content_key
from crispedit.shards import journal
from crispedit.shards.journal import Table

Row = dict[str, Any]

ATTEMPTS = ".attempts"


class Stage(Protocol):
    """What one pool of processes does. Pickles; `load` is called once in the process that will work."""

    name: str
    pool: Pool
    gpus: float

    def load(self) -> None: ...

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The same rows in order, with more columns. Rows with an `error` never arrive; an exception becomes one."""
        ...


@dataclass(frozen=True)
class Work:
    """A step ready to run: what is left to do, through which stages, into which table.

    `wire` is the schema of rows between stages; `explode` gives the rows to commit for one processed row.
    """

    step: str
    folder: Path
    table: Table
    plan: Sequence[Row]
    stages: Sequence[Stage]
    wire: pa.Schema
    explode: Callable[[Row], Sequence[Row]]
    rows: int
    """How many rows the whole plan will commit."""
    key: str = "key"

    def commit(self, done: Sequence[Row]) -> int:
        """Commit what came of these rows, as one part; returns how many rows that is."""
        rows = [row for one in done for row in self.explode(one)]
        journal.commit(self.folder, self.table, rows)
        return len(rows)


def run(work: Work, engine: Engine) -> None:
    """Do the work, or nothing when the plan is empty. Call inside `cluster(engine)`."""
    if not work.plan:
        return
    with _progress(work):
        if engine.kind == "inprocess":
            _run_inprocess(work, engine)
        else:
            _run_ray(work, engine)


@contextmanager
def cluster(engine: Engine) -> Iterator[None]:
    """The Ray cluster the block's work runs on: the one we are told to join, else one of our own, stopped afterwards.

    Another Ray on this machine is never joined by accident nor stopped.
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
    if joined:
        ray.init(address=joined, runtime_env=_runtime_env(), **quiet)
    else:
        cpus = engine.cpus or os.cpu_count()
        # Inherited, not a runtime_env: that would bar tasks from the processes Ray has ready.
        os.environ["PYTHONPATH"] = _python_path()
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def check_room(option: str, actors: int, cpus: float, gpus: float) -> None:
    """ValueError if the cluster is too small for so many actors: Ray would wait for ever."""
    import ray

    there = ray.cluster_resources()
    for kind, needed in (("CPU", actors * cpus), ("GPU", actors * gpus)):
        has = there.get(kind, 0.0)
        if needed > has + 1e-6:
            raise ValueError(f"{option}: they need {needed:g} {kind}, and the cluster has {has:g}")


def _runtime_env() -> dict[str, Any] | None:
    """Workers import the code that the driver runs, also from a checkout that is not installed. A submitted job's
    environment (`--working-dir`) already says so."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    return {"env_vars": {"PYTHONPATH": _python_path()}}


def _python_path() -> str:
    here = str(Path(crispedit.__file__).parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def _run_inprocess(work: Work, engine: Engine) -> None:
    workers = [_Worker(stage, work.wire, work.key) for stage in work.stages]
    for chunk in _slices(work.plan, _block_rows(work, engine, actors=1)):
        rows: Sequence[Row] = chunk
        for worker in workers:
            rows = worker.work(rows)
        work.commit(rows)


def _run_ray(work: Work, engine: Engine) -> None:
    import ray
    from ray.exceptions import RayTaskError

    pools = placement(work.step, work.stages, ray.cluster_resources())
    # The work itself holds the whole plan: what travels to the nodes is told one by one. The last stage commits what
    # it has done, so that images do not travel once more.
    folder = work.folder.absolute()
    commit = replace(work, folder=folder, plan=[], stages=[], rows=0).commit
    ends = [None] * (len(pools) - 1) + [commit]
    hosts = [
        _host(actors, stage, work.wire, work.key, folder / ATTEMPTS, end)
        for stage, actors, end in zip(work.stages, pools, ends, strict=True)
    ]
    in_flight = 2 * sum(pools)  # one at work and one at hand each: what lies between stages is bounded
    waiting: list[Any] = []
    try:
        for rows in _slices(work.plan, _block_rows(work, engine, actors=max(pools))):
            block: Any = pa.Table.from_pylist(list(rows), schema=work.wire)
            for send in hosts:
                block = send(block)
            waiting.append(block)
            if len(waiting) >= in_flight:
                done, waiting = ray.wait(waiting)
                ray.get(done)
        ray.get(waiting)
    except RayTaskError as error:
        raise error.cause from error  # what was raised there is raised here, as in this process


def _host(actors: int, stage: Stage, *told: Any) -> Callable[[Any], Any]:
    """The processes of a stage, as a function from a block, or a reference to one, to a reference to what follows."""
    import ray
    from ray import cloudpickle

    memory = None if stage.pool.memory_gb is None else stage.pool.memory_gb * 2**30
    own = {"num_cpus": stage.pool.cpus, "num_gpus": _gpus(stage), "memory": memory}
    if stage.pool.actors is None and not _gpus(stage):
        # Tasks, because a process that has done some is there for those of the next step and wave. Actors would be new
        # processes in every step, and importing Ray and the stage costs each of them seconds of a CPU.
        task = ray.remote(max_retries=-1, **own)(_task)
        worker = ray.put(cloudpickle.dumps(_Worker(stage, *told)))
        return lambda block: task.remote(block, worker)
    actor = ray.remote(max_restarts=-1, max_task_retries=-1, **own)(_Worker)
    todo: dict[Any, list[Any]] = {actor.remote(stage, *told): [] for _ in range(actors)}

    def send(block: Any) -> Any:
        for one, blocks in todo.items():
            if blocks:
                todo[one] = ray.wait(blocks, num_returns=len(blocks), timeout=0, fetch_local=False)[1]
        idlest = min(todo, key=lambda one: len(todo[one]))
        todo[idlest].append(idlest.process.remote(block))
        return todo[idlest][-1]

    return send


def preflight(step: str, stages: Sequence[Stage], engine: Engine) -> None:
    """ValueError, with the arithmetic, if these stages cannot run together on the cluster that is joined."""
    if engine.kind == "ray":
        import ray

        placement(step, stages, ray.cluster_resources())


def placement(step: str, stages: Sequence[Stage], resources: Mapping[str, float]) -> list[int]:
    """Actors of each stage on a cluster with these resources. ValueError, with the arithmetic, if they do not fit.

    A pool with `actors: null` takes what the named pools leave, shared evenly.
    """
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    memory_gb = resources.get("memory", 0.0) / 2**30
    fixed = [stage for stage in stages if stage.pool.actors is not None]
    open_ = [stage for stage in stages if stage.pool.actors is None]
    lines = [
        f"{actors} x {stage.name}: {actors * stage.pool.cpus:g} CPU, {actors * _gpus(stage):g} GPU, "
        f"{actors * (stage.pool.memory_gb or 0):g} GB"
        for stage, actors in [*((s, s.pool.actors or 1) for s in fixed), *((s, 1) for s in open_)]
    ]

    def total(of: Callable[[Stage], float]) -> float:
        return sum((stage.pool.actors or 1) * of(stage) for stage in stages)

    need_cpus = total(lambda s: s.pool.cpus)
    need_gpus, need_gb = total(_gpus), total(lambda s: s.pool.memory_gb or 0)
    if need_cpus > cpus + 1e-6 or need_gpus > gpus + 1e-6 or need_gb > memory_gb + 1e-6:
        arithmetic = "\n".join(f"  {line}" for line in lines)
        raise ValueError(
            f"{step} cannot be scheduled: it needs at least {need_cpus:g} CPU, {need_gpus:g} GPU and {need_gb:g} GB, "
            f"the cluster has {cpus:g} CPU, {gpus:g} GPU and {memory_gb:.1f} GB.\n{arithmetic}\n"
            "Lower the actors, cpus, gpus or memory_gb of these pools, or use a larger cluster "
            "(engine.cpus=N for one of our own)."
        )
    spare: list[tuple[float, Callable[[Stage], float]]] = [
        (cpus - need_cpus, lambda s: s.pool.cpus),
        (gpus - need_gpus, _gpus),
        (memory_gb - need_gb, lambda s: s.pool.memory_gb or 0),
    ]
    more = {
        id(stage): min(
            math.floor(left / sum(of(other) > 0 for other in open_) / of(stage) + 1e-6)
            for left, of in spare
            if of(stage) > 0
        )
        for stage in open_
    }
    return [stage.pool.actors or 1 + more[id(stage)] for stage in stages]


def _gpus(stage: Stage) -> float:
    return stage.gpus if stage.pool.gpus is None else stage.pool.gpus


def _block_rows(work: Work, engine: Engine, actors: int) -> int:
    """Rows a block: at most `rows_per_part`, fewer in a small plan: no actor idles long at its end."""
    return max(1, min(engine.rows_per_part, math.ceil(len(work.plan) / (24 * actors))))


def _slices(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


class _Worker:
    """A stage in its process: skips rows that have failed, isolates those that raise, quarantines those that kill."""

    def __init__(
        self,
        stage: Stage,
        wire: pa.Schema,
        key: str,
        attempts: Path | None = None,
        commit: Callable[[Sequence[Row]], int] | None = None,
    ) -> None:
        self.stage, self.wire, self.key, self.commit = stage, wire, key, commit
        self.attempts = None if attempts is None else _Attempts(attempts, stage.name)
        self.loaded = False

    def process(self, block: pa.Table) -> pa.Table | int:
        """The block after this stage; of the last stage, how many rows were committed."""
        rows = self.work(block.to_pylist())
        return (
            pa.Table.from_pylist(list(rows), schema=self.wire) if self.commit is None else self.commit(rows)
        )

    def work(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows of a block after this stage, in its own batches; rows that have failed pass through."""
        if not self.loaded:
            self._load([row[self.key] for row in rows])
        live = [row for row in rows if row.get("error") is None]
        batches = _slices(live, self.stage.pool.batch)
        done = {row[self.key]: row for batch in batches for row in self._guarded(batch)}
        return [done.get(row[self.key], row) for row in rows]

    def _load(self, keys: Sequence[str]) -> None:
        # One thread a worker: Ray counts its CPU as one, and OpenCV's results must not depend on the machine's cores.
        cv2.setNumThreads(1)
        if self.attempts is not None and self.attempts.begin("load", keys) >= 3:
            raise RuntimeError(f"{self.stage.name} cannot be loaded: its process has died of it 3 times")
        self.stage.load()
        self.loaded = True
        if self.attempts is not None:
            self.attempts.end("load", keys)

    def _guarded(self, rows: Sequence[Row]) -> Sequence[Row]:
        if self.attempts is None or not rows:
            return self._isolated(rows)
        keys = [row[self.key] for row in rows]
        if self.attempts.begin("batch", keys) == 0:
            done = self._isolated(rows)
        else:  # this batch has killed a process before: find the row that does
            done = [answer for row in rows for answer in self._alone(row)]
        self.attempts.end("batch", keys)
        return done

    def _alone(self, row: Row) -> Sequence[Row]:
        assert self.attempts is not None
        deaths = self.attempts.begin("row", [row[self.key]])
        if deaths >= 2:
            return [{**row, "error": f"quarantined: its {self.stage.name} process died {deaths} times on it"}]
        done = self._isolated([row])
        self.attempts.end("row", [row[self.key]])
        return done

    def _isolated(self, rows: Sequence[Row]) -> Sequence[Row]:
        answers = each(self.stage.process, rows)
        return [
            {**row, "error": describe(answer)} if isinstance(answer, Exception) else answer
            for row, answer in zip(rows, answers, strict=True)
        ]


def _task(block: pa.Table, pickled: bytes) -> pa.Table | int:
    """A block through a stage that stays in this process, loaded, for the tasks to come."""
    return _worker(pickled).process(block)


@lru_cache(maxsize=16)
def _worker(pickled: bytes) -> _Worker:
    worker: _Worker = pickle.loads(pickled)
    return worker


class _Attempts:
    """Which rows were being worked on when a process died: a small file each, a byte longer at each attempt."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder, self.stage = folder, stage
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, kind: str, keys: Sequence[str]) -> int:
        """Note an attempt; returns how many began before and never ended."""
        with self._path(kind, keys).open("ab") as file:
            before = file.tell()
            file.write(b"x")
        return before

    def end(self, kind: str, keys: Sequence[str]) -> None:
        self._path(kind, keys).unlink(missing_ok=True)

    def _path(self, kind: str, keys: Sequence[str]) -> Path:
        return self.folder / f"{kind}-{content_key(self.stage, *keys)}"


@contextmanager
def _progress(work: Work) -> Iterator[None]:
    """A bar over the rows committed by this work; silent when not on a terminal. Forgets attempts of a dead driver."""
    for attempt in (work.folder / ATTEMPTS).glob("*"):
        attempt.unlink()  # a driver's death is not its rows' fault
    before, seen = {path.name for path in journal.parts(work.folder)}, set[str]()
    done = threading.Event()
    with tqdm(total=work.rows, desc=f"{work.step:>8}", unit="row", disable=None) as bar:

        def advance() -> None:
            for part in journal.parts(work.folder):
                if part.name not in before and part.name not in seen:
                    seen.add(part.name)
                    bar.update(pq.read_metadata(part).num_rows)

        def watch() -> None:
            while not done.wait(0.5):
                advance()

        watcher = threading.Thread(target=watch, daemon=True)
        if not bar.disable:
            watcher.start()
        try:
            yield
        finally:
            done.set()
            if not bar.disable:
                watcher.join()
                advance()
