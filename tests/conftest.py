"""What tests share: photo-like images, a folder of them, and a small recipe that builds on them in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from crispedit import machine

# As the commands do, and before numpy and OpenCV are imported: builds in this process and in others give equal bytes.
os.environ.update({**machine.alike(), **os.environ})

from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from object_store import seaweed

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import build, engine, recipe
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.run import Run
from crispedit.shards import journal

STARTS_RAY = {
    "test_bad_inputs.py",
    "test_build_on_ray.py",
    "test_cli.py",
    "test_engine.py",
    "test_failure.py",
    "test_models_build.py",
    "test_servers_build.py",
    "test_shards_dataset.py",
    "test_shards_interop.py",
    "test_tokenize.py",
    "test_train_on_ray.py",
}
"""Files of tests that start Ray. One process runs them all, so that one cluster at a time starts on the machine."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A process takes a whole file of tests, or all of `STARTS_RAY`."""
    from xdist.scheduler import LoadFileScheduling

    class RayTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ray" if Path(file).name in STARTS_RAY else file

    return RayTogether(config, log)


settings.load_profile("ci")  # the same examples each time, however busy the machine is

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 384, 288

RECIPE = """
source: {kind: folder, path: photos}
categories: {add: 1, remove: 1, replace: 1, color: 1, background: 1, style: 1, motion: 1}
curate:
  filters:
    resolution: {bounds: {short_side_px: {min: 256}}}
    content: {}
    duplicate: {}
filters:
  resolution: {bounds: {short_side_px: {min: 256}}}
  unchanged: {}
  alignment: {}
  preservation: {}
  duplicate: {}
pack: {pairs_per_shard: 4}
engine: {kind: inprocess, rows_per_part: 4}
"""
"""Small photographs, in-process, several parts and shards; `run` and `source.path` come from the test."""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four different rendered landscapes."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, kind in enumerate(("meadow", "lake", "desert", "mountains")):
        (folder / f"{kind}.jpg").write_bytes(encode_jpeg(landscape(seed, WIDTH, HEIGHT, kind)))
    return folder


def make_run(root: Path, photos: Path, *overrides: str) -> Run:
    """A run of the small recipe."""
    made = recipe.recipe.parse(recipe.Recipe, RECIPE, [f"run={root}", f"source.path={photos}", *overrides])
    return Run(made.check())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Run:
    """An uninterrupted in-process build: what every other build must equal."""
    run = make_run(tmp_path_factory.mktemp("built") / "run", photos)
    build.build(run)
    return run


def lose_rows(folder: Path, lost: Callable[[dict[str, Any]], bool]) -> None:
    """Take committed rows out of a table, as if they had never been made."""
    for part in journal.parts(folder):
        table = pq.read_table(part)
        left = [row for row in table.to_pylist() if not lost(row)]
        pq.write_table(pa.Table.from_pylist(left, schema=table.schema), part)


KILLED = """
import os, re, sys
committed = []
def hook(event, args):
    if event == "os.rename" and re.search(sys.argv[1], os.fspath(args[1])):
        committed.append(args)
        if len(committed) == 2:
            os.kill(os.getpid(), 9)
sys.addaudithook(hook)
from crispedit.pipelines import cli
raise SystemExit(cli.main(sys.argv[2:]))
"""


def killed_at_its_second(path: str, *command: str, **environment: str) -> None:
    """Run a command of crispedit that is killed (kill -9) as it is about to commit a second file whose path matches:
    however busy the machine is, one is there."""
    ended = subprocess.run([sys.executable, "-c", KILLED, path, *command], cwd=ROOT, env={**os.environ, **environment})
    assert ended.returncode == -signal.SIGKILL


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[None]:
    """A Ray cluster of two nodes on loopback, joined by this process for the session."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 << 20},
    )
    nodes.add_node(num_cpus=2, object_store_memory=200 << 20)
    with engine.cluster(EngineSpec(address=nodes.address)):
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        yield
    nodes.shutdown()


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real S3 server."""
    try:
        with seaweed(tmp_path_factory.mktemp("seaweed")) as url:
            yield url
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"no S3 server: {error}")
