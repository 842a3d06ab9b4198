"""The scheduler over a simulated cluster: what it promises about rows, processes and nodes, without a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.engine import Line, Simulation, Sleep
from crispedit.pipelines.engine import Work
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.scheduling.cluster import Died, Done, Event, Lost, Ready
from crispedit.pipelines.scheduling.flow import Row, Stage
from crispedit.pipelines.scheduling.pool import Process, Sent
from crispedit.pipelines.scheduling.room import Need, Node, Room
from crispedit.pipelines.scheduling.scheduler import Scheduler
from crispedit.pipelines.scheduling.worker import BlockResult
from crispedit.recipe import Pool
from crispedit.shards.journal import Table


def gpus(count: int) -> list[Node]:
    return [Node("node", 64.0, count)]


def utilisation(line: Line, cluster: Simulation, count: int, block_seconds: float = 120.0) -> float:
    Scheduler(line, cluster, EngineSpec(block_seconds=block_seconds, rows_per_part=1000)).run()
    return max(line.work / count, line.longest) / cluster.now()


def test_gpus_follow_the_seconds_a_row():
    editors = [Sleep("fast", 10, 60), Sleep("slow", 30, 60)]
    cluster = Simulation(gpus(8))
    held: dict[str, set[int]] = {"fast": set(), "slow": set()}

    def tell(scheduler: Scheduler) -> None:
        if 3600 < cluster.now() < 7200:
            for name, counts in held.items():
                counts.add(len(scheduler.pools[name].staying))

    line = Line(None, editors, None, 3000, 3000)
    Scheduler(line, cluster, EngineSpec(rows_per_part=1000), tell).run()
    assert held == {"fast": {2}, "slow": {6}}
    assert line.work / 8 / cluster.now() > 0.97
    assert cluster.loads < 20


def test_a_slow_row_costs_its_own_time_only():
    def seconds(stage: Sleep, key: int) -> float:
        return 30.0 if key == 100 else 0.05

    line = Line(None, [Sleep("stage", 0.05, 0)], None, 4_840, 4_840, seconds=seconds)
    assert utilisation(line, Simulation(gpus(8)), 8) > 1 / 1.2


def test_a_killed_node_costs_a_block_of_each_process():
    cluster = Simulation([Node("a", 8.0, 4), Node("b", 8.0, 4)], kills=[(800.0, "b")])
    line = Line(Sleep("annotate", 2, 60), [Sleep("slow", 30, 60), Sleep("fast", 1, 60)], None, 400, 100)
    Scheduler(line, cluster, EngineSpec()).run()
    assert line.finished()
    assert 0 < cluster.lost <= 180


def test_a_node_that_joins_is_used():
    cluster = Simulation(gpus(2))
    line = Line(None, [Sleep("slow", 30, 60)], None, 400, 400)
    seen: set[str] = set()

    def tell(scheduler: Scheduler) -> None:
        if cluster.now() > 600:
            cluster.alive.setdefault("late", Node("late", 8.0, 4))
        seen.update(p.node for p in scheduler.pools["slow"].processes if p.block is not None)

    Scheduler(line, cluster, EngineSpec(), tell).run()
    assert seen == {"node", "late"}
    assert cluster.now() < 0.45 * line.work / 2 + 600


def test_a_node_that_is_drained_gets_no_new_blocks():
    nodes = [Node("a", 8.0, 2), Node("b", 8.0, 2)]
    cluster = Simulation(nodes)
    line = Line(None, [Sleep("slow", 30, 60)], None, 200, 200)
    late: list[float] = []
    cluster_send = cluster.send

    def send(block: Sent) -> None:
        assert block.process is not None
        if cluster.now() > 1002.5 and block.process.node == "b":
            late.append(cluster.now())
        cluster_send(block)

    def tell(scheduler: Scheduler) -> None:
        if cluster.now() > 1000:
            cluster.alive.pop("b", None)

    cluster.send = send  # type: ignore[method-assign]
    Scheduler(line, cluster, EngineSpec(), tell).run()
    assert line.finished()
    assert late == []


def test_more_stages_than_gpus_take_turns():
    line = Line(Sleep("annotate", 2, 30), [Sleep("slow", 10, 60)], Sleep("judge", 2, 30), 200, 200)
    assert utilisation(line, Simulation(gpus(1)), 1) > 0.8


@settings(max_examples=25)
@given(
    st.integers(1, 5),
    st.lists(st.floats(0.05, 40), min_size=1, max_size=3),
    st.integers(1, 60),
    st.integers(1, 20),
    st.floats(1, 100),
)
def test_every_row_is_done_once_whatever_the_cluster(
    count: int, seconds: list[float], rows: int, wave: int, loading: float
):
    editors = [Sleep(f"editor {n}", each, loading) for n, each in enumerate(seconds)]
    line = Line(Sleep("annotate", 1, loading), editors, Sleep("judge", 3, loading), rows, wave)
    Scheduler(line, Simulation(gpus(count)), EngineSpec()).run()
    assert [line.remaining(stage) for stage in line.total] == [0] * len(line.total)


# Deaths


SCHEMA = pa.schema([("key", pa.string()), ("error", pa.string())])


@dataclass
class Named:
    name: str
    pool: Pool = field(default_factory=lambda: Pool(actors=2, cpus=1.0, batch=4))
    gpus: float = 0.0

    def load(self) -> None: ...

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows


@dataclass
class Deadly:
    """A cluster at which blocks with a key in `poison` die, and those in `passing` fail twice in a passing way."""

    poison: set[str] = field(default_factory=set)
    passing: set[str] = field(default_factory=set)
    node_lives: bool = True
    lose: int = 0
    """So many blocks that carry data of the stage before find it lost."""
    time: float = 0.0
    events: list[Event] = field(default_factory=list)
    sent: list[tuple[str, list[str], str | None]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    committed: dict[str, str | None] = field(default_factory=dict)

    def now(self) -> float:
        return self.time

    def nodes(self) -> Sequence[Node]:
        return [Node("a", 4.0), Node("b", 4.0)]

    def holds(self, stage: Stage) -> bool:
        return stage.pool.actors is not None

    def start(self, process: Process) -> None:
        self.events.append(Ready(process))

    def stop(self, process: Process) -> None: ...

    def kill(self, block: Sent) -> None: ...

    def send(self, block: Sent) -> None:
        keys = [row["key"] for piece in block.pieces for row in piece.plan]
        node = None if block.process is None else block.process.node
        error = block.order.error
        if error is None:
            self.sent.append((block.stage.name, keys, node))
        if error is None and self.poison & set(keys):
            self.events.append(Died(block.process, block, self.node_lives, "killed"))
            self.node_lives = True
            return
        if self.lose and any(piece.data is not None for piece in block.pieces):
            self.lose -= 1
            self.events.append(Lost(block))
            return
        again = [
            place
            for place, key in enumerate(keys)
            if key in self.passing and self.failures[key] < 2 and not block.order.final
        ]
        self.failures.update(keys[place] for place in again)
        done = [key for place, key in enumerate(keys) if place not in again]
        if block.order.last:
            self.committed |= {key: None if error is None else str(error) for key in done}
        self.events.append(
            Done(block, BlockResult(len(keys), again, [{} for _ in done], 10, seconds=0.01 * len(keys)), "data")
        )

    def wait(self, seconds: float) -> Sequence[Event]:
        self.time += 0.01 if self.events else seconds
        events, self.events = self.events, []
        return events


def run(cluster: Deadly, stages: Sequence[Stage], keys: Sequence[str], **options: object) -> Scheduler:
    plan = [{"key": key} for key in keys]
    work = Work("test", Path("table"), Table(SCHEMA), plan, stages, SCHEMA, lambda r: [r])
    made = Scheduler(work, cluster, EngineSpec(block_seconds=1.0, **options))
    made.run()
    return made


KEYS = [f"row{n:02}" for n in range(40)]


@pytest.mark.parametrize("pool", [Pool(actors=2, cpus=1.0, batch=4), Pool(cpus=1.0, batch=4)], ids=["actors", "tasks"])
def test_a_row_that_kills_its_process_is_found_and_recorded(pool: Pool):
    cluster = Deadly({"row17"})
    run(cluster, [Named("a", pool)], KEYS)
    assert sorted(cluster.committed) == KEYS
    assert cluster.committed.pop("row17") == "its a process died 2 times on it"
    assert set(cluster.committed.values()) == {None}
    alone = [node for name, keys, node in cluster.sent if keys == ["row17"]]
    assert len(alone) == 2
    if pool.actors:
        assert len(set(alone)) == 2  # the second time on another node


def test_a_death_with_its_node_is_not_the_rows_fault():
    cluster = Deadly({"row17"}, node_lives=False)
    run(cluster, [Named("a")], ["row17"])
    assert len(cluster.sent) == 3  # once with the node, twice alone


def test_data_that_is_lost_is_made_again_from_the_plan():
    cluster = Deadly(lose=2)
    run(cluster, [Named("a"), Named("b")], KEYS)
    assert sorted(cluster.committed) == KEYS
    assert sum(len(keys) for name, keys, _ in cluster.sent if name == "a") > len(KEYS)


def test_a_passing_failure_is_tried_again_later():
    cluster = Deadly(passing={"row03", "row30"})
    run(cluster, [Named("a")], KEYS)
    assert sorted(cluster.committed) == KEYS
    assert cluster.failures == {"row03": 2, "row30": 2}
    assert cluster.now() > 15  # the second pause
    once = Deadly(passing={"row03"})
    run(once, [Named("a")], KEYS, attempts=1)
    assert once.failures == {}


# Room


def test_a_share_of_a_gpu_lies_on_one_gpu():
    room = Room([Node("a", 8.0, 2), Node("b", 8.0, 1)])
    for _ in range(3):
        node = room.node_for(Need(1.0, 0.6))
        assert node is not None
        room.take(node, Need(1.0, 0.6))
    assert room.node_for(Need(1.0, 0.6)) is None  # 1.2 GPUs are left, 0.4 of each
    assert room.node_for(Need(1.0, 0.4)) is not None
    assert room.node_for(Need(1.0, 1.0)) is None


def test_room_is_counted_in_memory_and_cpus_too():
    room = Room([Node("a", 2.0, 0, 16.0)])
    assert room.slots(Need(0.5)) == 4
    assert room.slots(Need(0.5, 0.0, 8.0)) == 2
    assert room.node_for(Need(3.0)) is None
    assert room.node_for(Need(1.0, 0.0, 32.0)) is None
