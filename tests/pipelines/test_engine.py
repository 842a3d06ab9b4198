"""The engine, in-process and on a Ray cluster of two nodes: every row comes out once, whatever happens to it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import make_run
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

from crispedit.outcome import Failing
from crispedit.pipelines import build, engine
from crispedit.pipelines.engine import Row, Work, placement
from crispedit.pipelines.recipe import EngineSpec
from crispedit.recipe import Pool
from crispedit.shards import journal
from crispedit.shards.journal import Table

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test

SCHEMA = pa.schema([("key", pa.string()), ("trail", pa.string()), ("pid", pa.int64()), ("error", pa.string())])


@dataclass
class Append:
    """Adds its name to a row's trail; raises for the row "bad", kills its process at "poison"."""

    name: str
    pool: Pool = field(default_factory=lambda: Pool(actors=1, cpus=0.5, batch=3))
    gpus: float = 0.0

    def load(self) -> None:
        self.loaded = True

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        for row in rows:
            if row["key"].startswith("bad"):
                raise ValueError(f"cannot do {row['key']}")
            if row["key"].startswith("poison"):
                os.kill(os.getpid(), 9)
        assert self.loaded
        return [{**row, "trail": (row["trail"] or "") + self.name, "pid": os.getpid()} for row in rows]


class Meeting(Append):
    """Does its first row only when three processes have come to this folder."""

    folder: Path

    def __init__(self, folder: Path, pool: Pool) -> None:
        super().__init__("a", pool)
        self.folder = folder

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        (self.folder / str(os.getpid())).touch()
        latest = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < 3 and time.monotonic() < latest:
            time.sleep(0.05)
        return super().process(rows)


class Unloadable(Append):
    """Kills its process before it has done anything."""

    def load(self) -> None:
        os.kill(os.getpid(), 9)


TASKS = Pool(batch=3)
"""A stage that needs no GPU and is given no actors runs as tasks."""


def work(folder: Path, keys: Sequence[str], stages: Sequence[str] = ("a", "b"), pool: Pool | None = None) -> Work:
    return Work(
        "test",
        folder,
        Table(SCHEMA),
        [{"key": key, "trail": None} for key in keys],
        [Append(name, pool) if pool else Append(name) for name in stages],
        SCHEMA,
        lambda row: [row],
    )


def rows(folder: Path, once: bool = True) -> dict[str, Row]:
    """The rows by key. A process that dies takes the word of its last commit along: those rows may stand twice."""
    found = [r for part in journal.parts(folder) for r in pa.parquet.read_table(part).to_pylist()]
    assert not once or len({r["key"] for r in found}) == len(found)
    return {r["key"]: r for r in found}


def check_bad_rows(folder: Path) -> None:
    done = rows(folder)
    assert len(done) == 22
    for key, row in done.items():
        if key.startswith("bad"):
            assert row["error"] == f"ValueError: cannot do {key}"
            assert row["trail"] is None
        else:
            assert row["error"] is None
            assert row["trail"] == "ab"


KEYS = [f"row{n}" for n in range(20)]


def test_in_process_a_row_that_raises_costs_itself_alone(tmp_path: Path):
    engine.run(work(tmp_path, [*KEYS, "bad1", "bad2"]), EngineSpec(kind="inprocess", rows_per_part=5))
    check_bad_rows(tmp_path)
    assert len(journal.parts(tmp_path)) > 1


@pytest.mark.parametrize("pool", [None, TASKS], ids=["actors", "tasks"])
def test_on_ray_a_row_that_raises_costs_itself_alone(tmp_path: Path, pool: Pool | None, ray_nodes: None):
    engine.run(work(tmp_path, [*KEYS, "bad1", "bad2"], pool=pool), EngineSpec(rows_per_part=5))
    check_bad_rows(tmp_path)


@pytest.mark.parametrize("pool", [None, TASKS], ids=["actors", "tasks"])
def test_on_ray_a_row_that_kills_its_process_is_quarantined(tmp_path: Path, pool: Pool | None, ray_nodes: None):
    engine.run(work(tmp_path, [*KEYS[:5], "poison", *KEYS[5:]], ["a"], pool), EngineSpec(rows_per_part=7))
    done = rows(tmp_path, once=False)
    assert sorted(done) == sorted([*KEYS, "poison"])
    assert done["poison"]["error"] == "quarantined: its a process died 2 times on it"
    assert all(row["trail"] == "a" for key, row in done.items() if key != "poison")


def test_on_ray_processes_stay_for_the_next_step(tmp_path: Path, ray_nodes: None):
    for step in ("first", "second"):
        engine.run(work(tmp_path / step, KEYS, ["a"], TASKS), EngineSpec(rows_per_part=5))
    first, second = ({row["pid"] for row in rows(tmp_path / step).values()} for step in ("first", "second"))
    assert first & second


def test_on_ray_a_stage_whose_loading_kills_its_process_stops_the_run(tmp_path: Path, ray_nodes: None):
    made = work(tmp_path, ["row0"])
    stages = [Unloadable("a", TASKS), Append("b")]
    made = Work("test", tmp_path, made.table, made.plan, stages, SCHEMA, made.explode)
    with pytest.raises(Failing, match="a cannot be loaded: its process has died of it 3 times"):
        engine.run(made, EngineSpec())
    assert rows(tmp_path) == {}


def test_on_ray_both_nodes_work(tmp_path: Path, ray_nodes: None):
    (tmp_path / "met").mkdir()
    made = work(tmp_path / "table", [f"row{n}" for n in range(64)], ["a"])
    meeting = Meeting(tmp_path / "met", Pool(actors=4, cpus=0.9, batch=2))
    made = Work(made.step, made.folder, made.table, made.plan, [meeting], SCHEMA, made.explode)
    engine.run(made, EngineSpec(rows_per_part=4))
    assert len({row["pid"] for row in rows(tmp_path / "table").values()}) >= 3  # one node of 2 CPUs has room for 2


def test_an_empty_plan_starts_nothing(tmp_path: Path):
    engine.run(work(tmp_path / "table", []), EngineSpec())
    assert not (tmp_path / "table").exists()


def stage(name: str, **pool: object) -> Append:
    return Append(name, Pool(**pool))


def test_preflight_shows_its_arithmetic():
    stages = [stage("decode", actors=2, cpus=1.0), stage("clip", gpus=1.0, cpus=0.5)]
    with pytest.raises(ValueError, match=r"score cannot be scheduled.*2\.5 CPU, 1 GPU and 0 GB.*has 2 CPU, 0 GPU") as e:
        placement("score", stages, {"CPU": 2.0})
    assert "2 x decode: 2 CPU, 0 GPU, 0 GB" in str(e.value)
    assert "1 x clip: 0.5 CPU, 1 GPU, 0 GB" in str(e.value)


def test_a_build_that_cannot_be_scheduled_is_refused_before_it_starts(tmp_path: Path, photos: Path, ray_nodes: None):
    run = make_run(tmp_path / "run", photos, "engine.kind=ray", "score.pool={actors: 9}")
    with pytest.raises(ValueError, match=r"score cannot be scheduled: it needs at least 9 CPU.*has 4 CPU"):
        build.build(run)
    assert not (run.root / "curate").exists() or not journal.parts(run.folder("curate"))


def test_open_pools_share_what_is_left():
    assert placement("s", [stage("a", cpus=0.9)], {"CPU": 2.0}) == [2]
    assert placement("s", [stage("a", cpus=0.9)], {"CPU": 16.0}) == [17]
    assert placement("s", [stage("a", cpus=1.0), stage("g", cpus=0.5, gpus=0.5)], {"CPU": 8.0, "GPU": 2.0}) == [4, 4]
    assert placement("s", [stage("a", cpus=1.0, memory_gb=8)], {"CPU": 16.0, "memory": 20 * 2**30}) == [2]


pools = st.builds(
    Pool,
    actors=st.none() | st.integers(1, 4),
    cpus=st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0, 3.0]),
    gpus=st.sampled_from([0.0, 0.25, 1.0]),
    memory_gb=st.none() | st.sampled_from([1.0, 4.0]),
)


@given(st.lists(pools, min_size=1, max_size=4), st.integers(1, 32), st.integers(0, 8))
def test_a_placement_always_fits(pools: list[Pool], cpus: int, gpus: int):
    stages = [Append(str(n), pool) for n, pool in enumerate(pools)]
    try:
        actors = placement("s", stages, {"CPU": cpus, "GPU": gpus, "memory": 64 * 2**30})
    except ValueError:
        return
    assert all(n >= 1 and pool.actors in (None, n) for n, pool in zip(actors, pools, strict=True))
    for limit, of in ((cpus, "cpus"), (gpus, "gpus"), (64, "memory_gb")):
        used = sum(n * (getattr(pool, of) or 0) for n, pool in zip(actors, pools, strict=True))
        assert used <= limit + 1e-3
