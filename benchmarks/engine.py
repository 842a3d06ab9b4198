"""How busy the engine keeps the GPUs of a cluster: busy GPU-seconds over GPU-seconds, on scenarios of known work.

    python -m benchmarks.engine [--only NAME ...] [--real] [--json FILE]

It measures the scheduler of real builds (`crispedit.pipelines.scheduling`). By default the cluster is simulated: the
same decisions with simulated time, loading, and a driver that needs `--driver-ms` for each block. `--real` uses Ray on
this machine instead, with logical GPUs, stages that sleep, and all times divided by `SPEED`. Next to each such result
is its simulation, with the measured loading time and driver time per block: the difference shows how far the simulation
can be trusted.

The ideal time is the work divided by the number of GPUs, but at least the longest row: no loading, no waiting, no tail.
Utilisation is the ideal time over the time taken since the first process was started.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.scheduling.cluster import Died, Done, Event, Ready
from crispedit.pipelines.scheduling.flow import Block, Route, Row
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Node
from crispedit.pipelines.scheduling.scheduler import Scheduler
from crispedit.pipelines.scheduling.worker import BlockResult
from crispedit.recipe import Pool

WIRE = pa.schema([("key", pa.int64()), ("seconds", pa.float64())])


@dataclass
class Sleep:
    """A stage that sleeps as long as each row says."""

    name: str
    seconds: float
    """Of a row, on average."""
    loading: float
    pool: Pool = field(default_factory=lambda: Pool(cpus=0.01, batch=1))
    gpus: float = 1.0

    def load(self) -> None:
        time.sleep(self.loading)

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        for row in rows:
            time.sleep(row["seconds"])
        return rows


def echo(rows: Sequence[Row]) -> Sequence[Row]:
    """A commit that writes nothing."""
    return [{"key": row["key"]} for row in rows]


class Line:
    """A flow: photographs in waves are annotated, edited by each editor, and each candidate is judged.

    The steps of a wave begin when the step before has finished it, candidates are judged as they come, and at most
    `open_waves` waves are under way. Rows take between 0.6 and 1.4 times the stage's seconds.
    """

    def __init__(
        self,
        annotate: Sleep | None,
        editors: Sequence[Sleep],
        judge: Sleep | None,
        rows: int,
        wave: int,
        open_waves: int = 3,
        seconds: Callable[[Sleep, int], float] | None = None,
    ) -> None:
        self.stages = [stage for stage in (annotate, *editors, judge) if stage is not None]
        self._annotate, self._editors, self._judge = annotate, editors, judge
        self._seconds = seconds or (lambda stage, key: stage.seconds * random.Random(key * 31).uniform(0.6, 1.4))
        self._rows, self._wave, self._open_waves = rows, wave, open_waves
        self._begun = 0
        self._queues: dict[str, deque[tuple[int, deque[Row]]]] = {s.name: deque() for s in self.stages}
        self._waiting: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._left: Counter[int] = Counter()
        """Rows of a wave that have to be done before it is finished."""
        self._annotating: Counter[int] = Counter()
        self._routes: dict[tuple[str, int], Route] = {}
        self.total = {s.name: rows * (len(editors) if s is judge and editors else 1) for s in self.stages}
        self.work = 0.0
        self.longest = 0.0
        self._open()

    def take(self, stage: str, rows: int) -> Block | None:
        queue = self._queues[stage]
        while queue and not queue[0][1]:
            queue.popleft()
        if not queue:
            return None
        wave, waiting = queue[0]
        taken = [waiting.popleft() for _ in range(min(rows, len(waiting)))]
        self._waiting[stage] -= len(taken)
        return Block(self._route(stage, wave), taken)

    def waiting(self, stage: str) -> int:
        return self._waiting[stage]

    def remaining(self, stage: str) -> float:
        return self.total[stage] - self._done[stage]

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        (stage,) = route.stages
        self._done[stage] += len(rows)
        self._left[route.wave] -= len(rows)
        if self._annotate is not None and stage == self._annotate.name:
            self._annotating[route.wave] -= len(rows)
            if not self._annotating[route.wave]:
                self._edit(route.wave)
        elif self._judge is not None and stage != self._judge.name:
            self._add(self._judge, route.wave, [row["key"] for row in rows])
        if not self._left[route.wave]:
            del self._left[route.wave]
            self._open()

    def finished(self) -> bool:
        return not self._left

    def _open(self) -> None:
        while len(self._left) < self._open_waves and self._begun < self._rows:
            wave = self._begun // self._wave
            rows = min(self._wave, self._rows - self._begun)
            self._begun += rows
            ways = max(1, len(self._editors))
            self._left[wave] = rows * (
                (self._annotate is not None) + len(self._editors) + (self._judge is not None) * ways
            )
            if self._annotate is not None:
                self._annotating[wave] = rows
                self._add(self._annotate, wave, range(self._begun - rows, self._begun))
            else:
                self._edit(wave)

    def _edit(self, wave: int) -> None:
        start = wave * self._wave
        keys = range(start, min(start + self._wave, self._rows))
        for editor in self._editors:
            self._add(editor, wave, keys)

    def _add(self, stage: Sleep, wave: int, keys: Sequence[int]) -> None:
        rows = [{"key": key, "seconds": self._seconds(stage, key)} for key in keys]
        self.work += sum(row["seconds"] for row in rows) * stage.gpus
        self.longest = max(self.longest, *(row["seconds"] for row in rows))
        self._waiting[stage.name] += len(rows)
        queue = self._queues[stage.name]
        for known, waiting in queue:
            if known == wave:
                waiting.extend(rows)
                return
        queue.append((wave, deque(rows)))

    def _route(self, stage: str, wave: int) -> Route:
        key = stage, wave
        if key not in self._routes:
            self._routes[key] = Route(stage, wave, (stage,), WIRE, echo)
        return self._routes[key]


class Simulation:
    """A `cluster.Cluster` in simulated time."""

    def __init__(
        self, nodes: Sequence[Node], driver_seconds: float = 0.0, kills: Sequence[tuple[float, str]] = ()
    ) -> None:
        self.alive = {node.name: node for node in nodes}
        self._time = 0.0
        self._events: list[tuple[float, int, Event | str]] = []
        self._count = 0
        self._driver = driver_seconds
        self._processes: set[Process] = set()
        self._flying: dict[Sent, float] = {}
        self.busy = 0.0
        self.loads = 0
        self.blocks = 0
        self.lost = 0.0
        for at, node in kills:
            self._push(at, node)

    def now(self) -> float:
        return self._time

    def nodes(self) -> Sequence[Node]:
        return list(self.alive.values())

    def holds(self, stage: object) -> bool:
        return True

    def start(self, process: Process) -> None:
        self.loads += 1
        self._processes.add(process)
        loading = process.stage.loading  # type: ignore[attr-defined]
        self._push(self._time + loading, Ready(process))

    def stop(self, process: Process) -> None:
        self._processes.discard(process)

    def send(self, block: Sent) -> None:
        self._time += self._driver
        self.blocks += 1
        rows = [row for piece in block.pieces for row in piece.plan]
        seconds = sum(row["seconds"] for row in rows)
        self._flying[block] = self._time
        report = BlockResult(len(rows), (), echo(rows), seconds=seconds)
        self._push(self._time + seconds, Done(block, report, None))

    def kill(self, block: Sent) -> None:
        raise AssertionError("nothing hangs here")

    def wait(self, seconds: float) -> Sequence[Event]:
        until = self._time + seconds
        if not self._events or self._events[0][0] > until:
            self._time = until
            return []
        self._time = max(self._time, self._events[0][0])
        found: list[Event] = []
        while self._events and self._events[0][0] <= self._time:
            event = heapq.heappop(self._events)[2]
            if isinstance(event, str):
                found += self._killed(event)
            elif isinstance(event, Ready) and event.process in self._processes:
                found.append(event)
            elif isinstance(event, Done) and event.block in self._flying:
                del self._flying[event.block]
                self.busy += event.report.seconds * event.block.stage.gpus
                found.append(event)
        return found

    def _killed(self, node: str) -> list[Event]:
        """A node is gone, with all that was at work on it."""
        del self.alive[node]
        there = {process for process in self._processes if process.node == node}
        self._processes -= there
        dead = [block for block in self._flying if block.process in there]
        for block in dead:
            self.lost = max(self.lost, self._time - self._flying.pop(block))
        working = {block.process for block in dead}
        loading = [process for process in there if not process.ready and process not in working]
        return [
            *(Died(block.process, block, False, "the node") for block in dead),
            *(Died(process, None, False, "the node") for process in loading),
        ]

    def _push(self, at: float, event: Event | str) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, event))


@dataclass(frozen=True)
class Scenario:
    gpus: int
    line: Callable[[float, float | None], Line]
    """The work, with all times divided by the first, and loading of the second seconds if that is given."""


def editing(seconds: Sequence[float], around: float | None, rows: int, wave: int = 500, loading: float = 60.0):
    """Editors of these seconds a row; annotate and judge of `around` seconds."""

    def line(speed: float, loaded: float | None) -> Line:
        def stage(name: str, each: float) -> Sleep:
            return Sleep(name, each / speed, loading / speed if loaded is None else loaded)

        editors = [stage(f"editor {each:g} s", each) for each in seconds]
        beside = [None, None] if around is None else [stage("annotate", around), stage("judge", around)]
        return Line(beside[0], editors, beside[1], rows, wave)

    return line


def one_stage(seconds: float, rows: int, straggler: float = 0.0):
    """One stage; a row early on takes `straggler` seconds. These times are not divided."""

    def line(speed: float, loaded: float | None) -> Line:
        def each(stage: Sleep, key: int) -> float:
            return straggler if straggler and key == rows // 20 else seconds

        return Line(None, [Sleep("stage", seconds, loaded or 0.0)], None, rows, rows, seconds=each)

    return line


SCENARIOS = {
    "16 GPUs, editors 10 s and 30 s": Scenario(16, editing([10, 30], 2, 14_000)),
    "64 GPUs, editors 10 s and 30 s": Scenario(64, editing([10, 30], 2, 56_000, wave=2000)),
    "16 GPUs, editors 1.5 s and 2 s": Scenario(16, editing([1.5, 2], 2, 60_000, wave=2000)),
    "64 GPUs, editors 1.5 s and 2 s": Scenario(64, editing([1.5, 2], 2, 240_000, wave=8000)),
    "8 processes, 50 ms rows, one of 30 s": Scenario(8, one_stage(0.05, 4_840, straggler=30.0)),
    "64 processes, 50 ms rows": Scenario(64, one_stage(0.05, 128_000)),
}
REAL = {
    "8 GPUs, editors 10 s and 30 s": Scenario(8, editing([10, 30], 2, 560, wave=80)),
    "16 GPUs, editors 10 s and 30 s": Scenario(16, editing([10, 30], 2, 1_120, wave=160)),
    "16 GPUs, editors 1.5 s and 2 s": Scenario(16, editing([1.5, 2], 2, 5_400, wave=600)),
    "32 GPUs, editors 10 s and 30 s": Scenario(32, editing([10, 30], 2, 2_240, wave=320)),
    "8 processes, 50 ms rows, one of 30 s": Scenario(8, one_stage(0.05, 19_360, straggler=30.0)),
    "16 processes, 50 ms rows": Scenario(16, one_stage(0.05, 38_400)),
}
"""About two and a half minutes each, on a Ray of this machine."""
SPEED = 20.0
BLOCK_SECONDS = 120.0


def simulated(
    of: Scenario, driver_seconds: float, speed: float = 1.0, loaded: float | None = None
) -> tuple[float, Simulation]:
    """(utilisation, the cluster) of a scenario in simulated time."""
    nodes = [Node(f"node {n}", 64.0, min(8, of.gpus - 8 * n)) for n in range(-(-of.gpus // 8))]
    cluster, line = Simulation(nodes, driver_seconds), of.line(speed, loaded)
    Scheduler(line, cluster, EngineSpec(block_seconds=BLOCK_SECONDS / speed, rows_per_part=1000)).run()
    return max(line.work / of.gpus, line.longest) / cluster.now(), cluster


@dataclass(frozen=True)
class Real:
    """What a scenario came to on Ray."""

    utilisation: float
    seconds: float
    blocks: int
    loads: int
    loaded: float
    """Seconds from the start of a process until it was loaded, on average."""
    driver: float
    """CPU seconds of the driver for a block."""


def real(of: Scenario) -> Real:
    """A scenario on a Ray of this machine, which is up before the clock starts."""
    import ray
    from ray import cloudpickle

    from crispedit.pipelines.scheduling.on_ray import RayCluster

    class Counting(RayCluster):
        sent = started = 0

        def send(self, block: Sent) -> None:
            self.sent += 1
            super().send(block)

        def start(self, process: Process) -> None:
            self.started += 1
            super().start(process)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    settings = EngineSpec(block_seconds=BLOCK_SECONDS / SPEED, rows_per_part=1000)
    line = of.line(SPEED, None)
    ray.init("local", num_cpus=4, num_gpus=of.gpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        cluster = Counting(line.stages)
        scheduler = Scheduler(line, cluster, settings)
        start, cpu = time.perf_counter(), time.process_time()
        scheduler.run()
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
    finally:
        ray.shutdown()
    loaded = sum(pool.loading_seconds for pool in scheduler.pools.values()) / cluster.started
    share = max(line.work / of.gpus, line.longest) / took
    return Real(share, took, cluster.sent, cluster.started, loaded, cpu / cluster.sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of scenarios")
    parser.add_argument("--driver-ms", type=float, default=3.0, help="the driver's time for a block")
    parser.add_argument("--real", action="store_true", help="on a Ray of this machine, beside its simulation")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    scenarios = REAL if args.real else SCENARIOS
    chosen = {name: of for name, of in scenarios.items() if all(part in name for part in args.only)}
    found: dict[str, float] = {}
    print(f"{'':42} {'utilisation':>11} {'hours':>7} {'blocks':>7} {'loads':>6} {'driver ms/block':>15}")

    def tell(name: str, share: float, seconds: float, blocks: int, loads: int, driver: float) -> None:
        found[name] = share
        print(f"{name:42} {share:11.3f} {seconds / 3600:7.2f} {blocks:7} {loads:6} {1000 * driver:15.2f}", flush=True)

    for name, of in chosen.items():
        if args.real:
            did = real(of)
            tell(f"{name}, on Ray", did.utilisation, did.seconds, did.blocks, did.loads, did.driver)
            share, cluster = simulated(of, did.driver, SPEED, did.loaded)
            tell(f"{name}, simulated", share, cluster.now(), cluster.blocks, cluster.loads, did.driver)
        else:
            start = time.process_time()
            share, cluster = simulated(of, args.driver_ms / 1000)
            decided = (time.process_time() - start) / cluster.blocks
            tell(name, share, cluster.now(), cluster.blocks, cluster.loads, decided)
    if args.json is not None:
        args.json.write_text(json.dumps({"utilisation": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
