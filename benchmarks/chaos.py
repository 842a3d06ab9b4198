"""Faults in real builds. Each build is disturbed by a fault, then the same command is repeated until it finishes, and
the result is compared with an undisturbed build: every byte of the shards, every row of the tables.

    python -m benchmarks.chaos [--only SCENE ...] [--seed N] [--share 1.0] [--json FILE]

Scenes: `cluster` (a Ray cluster of three nodes on one machine: processes, nodes and drivers are killed, paused,
drained, added), `editors` (an editor that raises, dies or hangs), `machine` (disks, limits, clocks, locks, signals),
`inputs` and `tables` (files that vanish, change and come back; damaged files of the run), `servers` (chat and image
servers that fail), `store` (a real S3 server behind a proxy that misbehaves, for photographs and shards).

`--share` is the part of each kind's faults that is tried, at least one; `--seed` decides when and where they strike.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import chat_server
import images_server
import object_store
from chat_server import Said
from images_server import Sent

from benchmarks import disturbed
from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, recipe, tables
from crispedit.pipelines.run import Run

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """
source: {kind: folder, path: photos}
categories: {color: 1, background: 1, style: 1}
curate:
  filters: {content: {}, duplicate: {}}
edit: {editors: {disturbed: {editor: benchmarks.disturbed}}}
filters: {unchanged: {}, preservation: {}, duplicate: {}}
pack: {pairs_per_shard: 4}
engine: {kind: inprocess, rows_per_part: 2, wave_sources: 2, attempts: 1, block_seconds: 1}
"""
SERVED = """
source: {kind: folder, path: photos}
categories: {color: 1, style: 1}
annotate: {annotator: chat, refinements: 0}
edit: {editors: {images_api: {model: tiny, retries: 1, timeout_s: 3, max_pause_s: 2}}}
filters: {unchanged: {}}
pack: {pairs_per_shard: 4}
engine: {kind: inprocess, rows_per_part: 4, attempts: 1}
"""
PHOTOS = 6
MOST_RUNS = 8
"""Repetitions after which a build counts as one that does not finish."""
TABLES = ("curate", "annotate", "edit", "score", "compare")
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  static long calls;
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  long shift = atol(getenv("CLOCK_SHIFT"));
  if (!failed && clock == CLOCK_REALTIME) now->tv_sec += getenv("CLOCK_JUMPS") && calls++ / 20 % 2 ? -shift : shift;
  return failed;
}
"""


@dataclass
class Fault:
    """A fault, and the outcome of the disturbed build."""

    scene: str
    kind: str
    where: str
    runs: int = 0
    """Runs of the command until it finished; 1: the disturbed one finished by itself."""
    identical: bool = False


@dataclass
class World:
    """The settings, photographs and results that all builds of one call share."""

    folder: Path
    seed: int
    share: float
    faults: list[Fault] = field(default_factory=list)
    references: dict[str, dict[str, str]] = field(default_factory=dict)

    def times(self, most: int) -> range:
        return range(max(1, round(most * self.share)))

    def some(self, kinds: Sequence[Any]) -> Sequence[Any]:
        return [kinds[n * len(kinds) // len(self.times(len(kinds)))] for n in self.times(len(kinds))]


class Trial:
    """One build: a recipe, a run directory, and the command that is repeated."""

    numbers = itertools.count(1)

    def __init__(
        self, world: World, scene: str, *overrides: str, text: str = RECIPE, like: str = "", at: Path | None = None
    ) -> None:
        self.world, self.scene, self.like = world, scene, like or scene
        self.folder = world.folder / f"{next(Trial.numbers):03d}-{scene}"
        self.folder.mkdir()
        self.root = (at or self.folder) / "run"
        (self.folder / "recipe.yaml").write_text(text)
        if not any(one.startswith("source.path=") for one in overrides):
            overrides = (*overrides, f"source.path={world.folder / 'photos'}")
        self.command = [sys.executable, "-m", "crispedit.pipelines.cli", "build", str(self.folder / "recipe.yaml")]
        self.command += [f"run={self.root}", *overrides]
        self.env = {**os.environ, "CHAOS": str(self.folder), "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        self.runs = 0
        self.struck: list[tuple[Fault, int]] = []
        self.will(0.0)

    @property
    def log(self) -> Path:
        return self.folder / f"run-{self.runs}.log"

    def will(self, pause: float, fault: str = "") -> None:
        """Set how the disturbed editor behaves from now on."""
        for old in self.folder.glob("struck-*"):
            old.unlink()
        (self.folder / "pause").write_text(str(pause))
        (self.folder / "fault").write_text(fault)

    def start(self, *more: str, **options: Any) -> subprocess.Popen[bytes]:
        self.runs += 1
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*self.command, *more],
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the command, and end processes that it left. If it takes too long it is killed: one more fault."""
        try:
            return process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def once(self, *more: str, **options: Any) -> int:
        return self.ended(self.start(*more, **options))

    def parts(self) -> list[Path]:
        return [path for path in self.root.rglob("*.*") if path.suffix in (".parquet", ".tar") and path.name[0] != "."]

    def where(self) -> str:
        """The step that committed last when a fault struck."""
        with suppress(OSError):  # a temporary file has just got its name
            newest = max(self.parts(), key=lambda path: path.stat().st_mtime_ns, default=None)
            return "start" if newest is None else f"after {newest.relative_to(self.root).parts[0]}"
        return "in a commit"

    def strike(self, kind: str, where: str | None = None, at_next: bool = False) -> None:
        """Note a fault that strikes this run of the command, or the next one."""
        fault = Fault(self.scene, kind, where or self.where())
        self.world.faults.append(fault)
        self.struck.append((fault, self.runs + at_next))

    def finish(
        self,
        *more: str,
        during: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
        mend: Callable[[Trial], None] = lambda trial: None,
    ) -> bool:
        """Repeat the command until it finishes with nothing left to try again, and compare. `mend`: what the user does
        after a failure."""
        for _ in range(MOST_RUNS):
            process = self.start(*more)
            during(process)
            if self.ended(process) == 0 and not self.waiting():
                return self.compare()
            mend(self)
        print(f"{self.folder.name}: does not finish: {self.log}", flush=True)
        return self.compare(finished=False)

    def waiting(self) -> bool:
        """Whether rows wait for the next run of the same command."""
        return any(failure.transient for failure in audit.audit(self.run).errors)

    def compare(self, finished: bool = True) -> bool:
        same = finished and digest(self.run) == self.world.references[self.like]
        for fault, run in self.struck:
            fault.runs, fault.identical = self.runs - run + 1, same
        self.struck = []
        told = "identical" if same else f"NOT identical: {self.log}"
        print(f"{self.folder.name}: {self.runs} runs, {told}", flush=True)
        return same

    @property
    def run(self) -> Run:
        return Run(recipe.load(str(self.root)))


TIMES = ("seconds", "gpu_seconds")
"""Columns of time spent, which differ between any two builds."""


def digest(run: Run) -> dict[str, str]:
    """A hash of the rows of each table and of the bytes of each file of the shards.

    Where a table keeps its images (which tar, at which byte) is not compared, but their bytes are; nor is `TIMES`.
    """
    db = tables.connect(run)
    found = {}
    for name in TABLES:
        rows = db.sql(f"SELECT * FROM {name} ORDER BY ALL").to_arrow_table().to_pylist()
        found[name] = _hash(sorted(json.dumps(_row(row), default=str) for row in rows))
    for file in ("sources", "selection"):
        found[file] = _hash(pq.read_table(run.folder("select") / f"{file}.parquet").to_pylist())
    for name, data in _files(run.shards):
        found[f"shards/{name}"] = hashlib.sha256(data).hexdigest()
    return found


def _row(row: dict[str, Any]) -> dict[str, Any]:
    hashed = {k: v["xxh3_64"] if isinstance(v, dict) and "xxh3_64" in v else v for k, v in row.items()}
    return {name: value for name, value in hashed.items() if name not in TIMES}


def _hash(of: object) -> str:
    return hashlib.sha256(json.dumps(of, default=str).encode()).hexdigest()


def _files(place: str) -> Iterator[tuple[str, bytes]]:
    import fsspec

    system, inner = fsspec.core.url_to_fs(place)
    system.invalidate_cache()
    for path in sorted(system.find(inner)):
        yield path.removeprefix(inner).lstrip("/"), system.cat_file(path)


def reference(trial: Trial) -> None:
    """The undisturbed build that others of its kind are compared with."""
    if trial.once() != 0:
        raise RuntimeError(f"the undisturbed build failed: {trial.log.read_text()}")
    trial.world.references[trial.like] = digest(trial.run)


# A cluster


NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


class Nodes:
    """A Ray cluster of three nodes on loopback."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        for _ in range(2):
            self.cluster.add_node(**NODE)

    def end(self) -> None:
        self.cluster.shutdown()

    def lose(self) -> None:
        """All nodes at once, the head too."""
        for node in [self.cluster.head_node, *self.workers]:
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        self.cluster.shutdown()
        self.begin()

    @property
    def workers(self) -> list[Any]:
        """All nodes but the head, in one order."""
        return sorted(self.cluster.worker_nodes, key=lambda node: node.node_id)

    def raylet(self, node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)

    def busy(self) -> list[int]:
        """Processes of the cluster that work on a block."""
        raylets = {self.raylet(node) for node in self.cluster.list_all_nodes()}
        return [pid for pid, parent, command in processes() if parent in raylets and command.startswith("ray::_")]


def processes() -> Iterator[tuple[int, int, str]]:
    """(pid, parent's pid, command line) of each process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(stat.parent.name), parent, command


Strike = Callable[[Trial, Nodes, subprocess.Popen[bytes], random.Random], bool]
"""Strikes and returns True, or returns False if there is nothing to strike now."""


def signalled(pid: int, number: int, seconds: float | None = None) -> None:
    """Send a signal; with `seconds`, let the process continue after that long."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)


def of_worker(number: int, seconds: float | None = None) -> Strike:
    def strike(trial: Trial, nodes: Nodes, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
        if busy := nodes.busy():
            signalled(rng.choice(busy), number, seconds)
        return bool(busy)

    return strike


def of_driver(number: int, seconds: float | None = None) -> Strike:
    def strike(trial: Trial, nodes: Nodes, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
        signalled(driver.pid, number, seconds)
        return True

    return strike


def of_node(act: Callable[[Trial, Nodes, Any], bool]) -> Strike:
    """A strike on one of the workers' nodes."""

    def strike(trial: Trial, nodes: Nodes, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
        return bool(nodes.workers) and act(trial, nodes, rng.choice(nodes.workers))

    return strike


def node_killed(trial: Trial, nodes: Nodes, node: Any) -> bool:
    nodes.cluster.remove_node(node, allow_graceful=False)
    return True


def node_drained(trial: Trial, nodes: Nodes, node: Any) -> bool:
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", nodes.cluster.address]
    command += ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "a spot notice", "--deadline-remaining-seconds", "4"]
    return subprocess.run(command, capture_output=True, env=trial.env).returncode == 0


def node_paused(trial: Trial, nodes: Nodes, node: Any) -> bool:
    signalled(nodes.raylet(node), signal.SIGSTOP, 3)
    return True


def node_joins(trial: Trial, nodes: Nodes, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
    if len(nodes.workers) > 2:  # no more than it began with
        nodes.cluster.remove_node(nodes.workers[0], allow_graceful=True)
    nodes.cluster.add_node(**NODE)
    return True


def cluster_lost(trial: Trial, nodes: Nodes, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
    nodes.lose()
    trial.env["RAY_ADDRESS"] = nodes.cluster.address
    return True


STRIKES: dict[str, tuple[int, Strike]] = {
    "worker killed": (8, of_worker(signal.SIGKILL)),
    "worker paused for 3 s": (3, of_worker(signal.SIGSTOP, 3)),
    "worker stops for good": (1, of_worker(signal.SIGSTOP)),
    "node killed": (5, of_node(node_killed)),
    "node joins": (5, node_joins),
    "node drained": (2, of_node(node_drained)),
    "node paused for 3 s": (2, of_node(node_paused)),
    "driver killed": (5, of_driver(signal.SIGKILL)),
    "driver sent SIGTERM": (2, of_driver(signal.SIGTERM)),
    "driver sent SIGINT": (2, of_driver(signal.SIGINT)),
    "driver paused for 3 s": (2, of_driver(signal.SIGSTOP, 3)),
    "whole cluster lost": (2, cluster_lost),
}


def cluster(world: World) -> None:
    rng = random.Random(world.seed)
    left = [(kind, strike) for kind, (most, strike) in STRIKES.items() for _ in world.times(most)]
    rng.shuffle(left)
    editor = world.folder / "editor"  # the nodes give their processes this environment, once
    editor.mkdir()
    (editor / "pause").write_text("0.3")
    (editor / "fault").write_text("")
    os.environ["CHAOS"] = str(editor)
    nodes = Nodes()
    try:
        while left:
            trial = Trial(world, "cluster", "engine.kind=ray", "engine.stall_minutes=1", like="plain")
            trial.env["RAY_ADDRESS"] = nodes.cluster.address
            trial.finish(during=partial(struck, trial, nodes, left, rng))
            while len(nodes.workers) < 2:
                nodes.cluster.add_node(**NODE)
    finally:
        nodes.end()


def struck(
    trial: Trial, nodes: Nodes, left: list[tuple[str, Strike]], rng: random.Random, driver: subprocess.Popen[bytes]
) -> None:
    """Strike whenever the build has come further, until it ends."""
    seen = len(trial.parts())
    while driver.poll() is None and left:
        time.sleep(0.05)
        if (now := len(trial.parts())) == seen:
            continue
        seen = now
        time.sleep(rng.uniform(0, 0.6))
        if driver.poll() is not None:
            return
        kind, strike = left[-1]
        where = trial.where()
        if strike(trial, nodes, driver, rng):
            left.pop()
            trial.strike(kind, where)
        else:
            rng.shuffle(left)


# Parts


def editors(world: World) -> None:
    for kind in world.some(disturbed.KINDS):
        kills = kind in ("exits", "crashes", "hangs")
        engine = ["engine.kind=ray", "engine.cpus=2", "engine.stall_minutes=0.5"] if kills else []
        trial = Trial(world, "editors", *engine, like="plain")
        trial.will(0.0, f"{kind} x 4")
        trial.strike(f"editor {kind}", "edit", at_next=True)
        trial.once()
        # Errors of a part are permanent for the build: only the user knows that it was mended.
        trial.finish(*([] if kills or kind == "no connection" else ["--retry", "errors"]))


# The machine


def machine(world: World) -> None:
    rng = random.Random(world.seed + 1)
    for kind, number in (("killed", signal.SIGKILL), ("SIGTERM", signal.SIGTERM), ("Ctrl-C", signal.SIGINT)):
        for _ in world.times(3):
            trial = Trial(world, "machine", like="plain")
            trial.will(0.05)
            interrupted(trial, f"build without Ray: {kind}", number, rng.randrange(3, 30))
            trial.finish()
    one_node_lost(world)
    for share in world.some((0.2, 0.5, 0.8)):
        disk(world, share)
    read_only(world)
    limited(world, "largest file 20 kB", resource.RLIMIT_FSIZE, 20_000)
    limited(world, "40 open files at most", resource.RLIMIT_NOFILE, 40)
    clocks(world)
    locks(world)


def interrupted(trial: Trial, kind: str, number: int, parts: int) -> None:
    """Signal the command once it has committed so many files."""
    process = trial.start()
    while process.poll() is None and len(trial.parts()) < parts:
        time.sleep(0.01)
    trial.strike(kind)
    process.send_signal(number)
    trial.ended(process)


def one_node_lost(world: World) -> None:
    trial = Trial(world, "machine", "engine.kind=ray", "engine.cpus=2", like="plain")
    trial.will(0.2)
    process = trial.start()
    while process.poll() is None and len(trial.parts()) < 8:
        time.sleep(0.02)
    trial.strike("the build's own raylet killed")
    for pid, _, command in processes():
        if "raylet/raylet " in command and os.getsid(pid) == process.pid:
            os.kill(pid, signal.SIGKILL)
    trial.ended(process)
    trial.finish()


@contextmanager
def small_disk(world: World, size: int) -> Iterator[Path | None]:
    """A mounted disk of `size` bytes; None if the system does not permit it."""
    place = world.folder / "disk"
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", place], capture_output=True)
    if mounted.returncode:
        print("not permitted to mount a disk: its faults are left out")
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", place], check=True, capture_output=True)


def disk(world: World, share: float) -> None:
    """A disk with room for this share of the bytes that the build writes."""
    with small_disk(world, int(share * 2_000_000)) as place:
        if place is not None:
            trial = Trial(world, "machine", like="plain", at=place)
            trial.once()
            trial.strike("disk full")
            remount(place, "size=50m")
            trial.finish()


def read_only(world: World) -> None:
    with small_disk(world, 50_000_000) as place:
        if place is not None:
            trial = Trial(world, "machine", like="plain", at=place)
            interrupted(trial, "disk becomes read-only", signal.SIGKILL, 8)
            remount(place, "ro")
            trial.once()
            remount(place, "rw")
            trial.finish()


def limited(world: World, kind: str, limit: int, value: int) -> None:
    """A limit of the process, as `ulimit` sets it."""
    trial = Trial(world, "machine", like="plain")
    trial.once(preexec_fn=lambda: resource.setrlimit(limit, (value, value)))
    trial.strike(kind)
    trial.finish()


def clocks(world: World) -> None:
    library = world.folder / "clock.so"
    source = library.with_suffix(".c")
    source.write_text(CLOCK)
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        print("no C compiler: the faults of the clock are left out")
        return
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    year = 365 * 86400
    shifts = {"set back 3 years": (-3 * year, {}), "10 years ahead": (10 * year, {})}
    shifts["jumps by days"] = (3 * 86400, {"CLOCK_JUMPS": "1"})
    for kind in world.some(list(shifts)):
        shift, more = shifts[kind]
        trial = Trial(world, "machine", like="plain")
        interrupted(trial, f"clock {kind}", signal.SIGKILL, 12)
        sound = trial.env
        trial.env = {**sound, "LD_PRELOAD": str(library), "CLOCK_SHIFT": str(shift), **more}
        trial.finish()


HOLD = "import sys, time; from pathlib import Path; from crispedit.shards.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1]), 'taken'): print(flush=True); time.sleep(600)"


def locks(world: World) -> None:
    trial = Trial(world, "machine", like="plain")
    interrupted(trial, "run held by another process", signal.SIGKILL, 10)
    hold = [sys.executable, "-c", HOLD, str(trial.root / ".lock")]
    with subprocess.Popen(hold, env=trial.env, cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        trial.once()
        holder.kill()
    trial.finish()
    trial = Trial(world, "machine", like="plain")
    first = trial.start()
    trial.strike("two drivers at once", "start")
    second = trial.start()
    trial.ended(first), trial.ended(second)
    trial.finish()


# Files


def inputs(world: World) -> None:
    whole = photo_bytes(PHOTOS - 1)
    changes: dict[str, Callable[[Path], object]] = {
        "photograph removed for a while": Path.unlink,
        "photograph cut in half": lambda path: path.write_bytes(whole[: len(whole) // 2]),
        "photograph overwritten with zeros": lambda path: path.write_bytes(bytes(len(whole))),
        "photograph empty": lambda path: path.write_bytes(b""),
        "photograph replaced by a folder": lambda path: (path.unlink(), path.mkdir()),
        "photograph a link that leads nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    }
    photos = world.folder / "changing"
    shutil.copytree(world.folder / "photos", photos)
    path = max(photos.iterdir())  # the one that is read last
    started = partial(Trial, world, "inputs", f"source.path={photos}")
    reference(started())
    for kind in world.some(list(changes)):
        trial = started()
        trial.will(0.05)
        process = trial.start()
        while process.poll() is None and not any(trial.root.glob("listing/part-*.parquet")):
            time.sleep(0.005)
        changes[kind](path)
        trial.strike(kind)
        trial.ended(process)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(whole)
        # A missing file is tried again by itself; only the user knows that a damaged one was mended.
        trial.finish(*([] if "removed" in kind else ["--retry", "errors"]))


def photo_bytes(number: int) -> bytes:
    return encode_jpeg(landscape(number, 160, 120, ("meadow", "lake", "desert", "mountains")[number % 4]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size))


def flipped(path: Path) -> None:
    """One bit, inside an image of a tar."""
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)


def leftover(path: Path) -> None:
    (path.parent / f".{path.name}.0123.tmp").write_bytes(b"half")
    (path.parent / "part-00000000000000000000000000000000.tar").write_bytes(b"a tar whose table never came")


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "part of curate cut": ("curate/*/part-*.parquet", cut),
    "part of annotate garbled": ("annotate/*/part-*.parquet", garbled),
    "part of edit cut": ("edit/*/part-*.parquet", cut),
    "part of score removed": ("score/*/part-*.parquet", Path.unlink),
    "part of edit removed": ("edit/*/part-*.parquet", Path.unlink),
    "part of the listing cut": ("listing/part-*.parquet", cut),
    "photographs' tar cut": ("curate/*/part-*.tar", cut),
    "photographs' tar removed": ("curate/*/part-*.tar", Path.unlink),
    "edits' tar: a bit flips": ("edit/*/part-*.tar", flipped),
    "edits' tar garbled": ("edit/*/part-*.tar", garbled),
    "leftovers of a crash": ("edit/*/part-*.parquet", leftover),
    "wave's verdicts removed": ("waves/wave-*.parquet", Path.unlink),
    "selection garbled": ("select/selection.parquet", garbled),
    "progress file garbled": ("progress/*.json", garbled),
    "fingerprint garbled": ("edit/fingerprint.json", garbled),
    "shard removed": ("shards/*.tar", Path.unlink),
    "shard cut": ("shards/*.tar", cut),
    "index of the shards garbled": ("shards/index.parquet", garbled),
    "manifest garbled": ("shards/manifest.json", garbled),
}


def damage(world: World) -> None:
    """One run, damaged again and again."""
    rng = random.Random(world.seed + 2)
    trial = Trial(world, "tables", like="plain")
    trial.once()
    for kind in world.some(list(DAMAGES)):
        pattern, change = DAMAGES[kind]
        if not pattern.startswith("shards"):
            shutil.rmtree(trial.root / "shards")  # unread parts do not matter
        change(rng.choice(sorted(trial.root.glob(pattern))))
        trial.strike(kind, pattern.partition("/")[0], at_next=True)
        if not trial.finish(mend=do_what_it_says):
            trial = Trial(world, "tables", like="plain")
            trial.once()


def do_what_it_says(trial: Trial) -> None:
    """Remove the part that the error names, as the error says."""
    said = trial.log.read_text()
    if (named := re.search(r"(/\S+\.(?:parquet|tar|json))", said)) is None or "emove" not in said:
        print(f"{trial.log}: this error has no way out: {said[-300:]}")
        return
    for suffix in (".parquet", ".tar", ".json"):
        Path(named[1]).with_suffix(suffix).unlink(missing_ok=True)


# Servers


def reply(asked: chat_server.Asked) -> str:
    """The smallest valid reply to the annotator's request."""
    if asked.is_hello:
        return '{"ready": true}'
    schema = asked.body["response_format"]["json_schema"]["schema"]

    def make(name: str, of: dict[str, Any]) -> Any:
        if "enum" in of:
            return "yes" if name == "object_present" else "no" if "no" in of["enum"] else of["enum"][0]
        return [] if of.get("type") == "array" else "make the sky pink"

    return json.dumps({name: make(name, one) for name, one in schema["properties"].items()})


CHAT: dict[str, Callable[[chat_server.Asked], Said]] = {
    "503": lambda asked: Said(status=503, body="{}"),
    "429, Retry-After": lambda asked: Said(status=429, body="{}", headers={"Retry-After": "1"}),
    "502 with a page of HTML": lambda asked: Said(status=502, body="<html>Bad Gateway</html>"),
    "connection reset": lambda asked: Said(hang_up=True),
    "no answer in time": lambda asked: Said(reply(asked), after_s=4),
    "answer cut in the middle": lambda asked: Said(body='{"id": "1", "choices": [{"mess', headers={"X-Cut": "1"}),
    "body is no JSON": lambda asked: Said(body="out of memory"),
    "no choices": lambda asked: Said(body='{"id": "1", "object": "chat.completion", "choices": []}'),
    "words in place of JSON": lambda asked: Said("I am sorry, Dave."),
    "cut off by the length": lambda asked: Said('{"caption": "a', finish_reason="length"),
}
IMAGES: dict[str, Callable[[images_server.Form], Sent]] = {
    "503": lambda form: images_server.problem(503, "overloaded"),
    "429, Retry-After": lambda form: images_server.problem(429, "slow_down", Retry_After="1"),
    "connection reset": lambda form: Sent(hang_up=True),
    "no answer in time": lambda form: Sent(b"{}", after_s=4),
    "body ends early": lambda form: Sent(tinted(form).body[:500], length=5000),
    "body is no JSON": lambda form: Sent(b"out of memory"),
    "image garbled": lambda form: images_server.b64(b"no image"),
}
PERMANENT = {"body is no JSON", "no choices", "words in place of JSON", "cut off by the length", "image garbled"}
PERMANENT |= {"answer cut in the middle"}
"""Wrong answers, not missing ones: the row keeps an error, which `--retry errors` tries again."""


def tinted(form: images_server.Form) -> Sent:
    from PIL import ImageOps

    return images_server.b64(images_server.png(ImageOps.solarize(form.image.convert("RGB"), 100)))


class Moody:
    """Answers a few requests with a fault, or all while it is down."""

    def __init__(self, sound: Callable[[Any], Any]) -> None:
        self.sound, self.fault, self.left = sound, sound, 0.0

    def will(self, fault: Callable[[Any], Any], times: float) -> None:
        self.fault, self.left = fault, times

    def __call__(self, asked: Any) -> Any:
        if getattr(asked, "is_hello", False) or self.left <= 0:
            return self.sound(asked)
        self.left -= 1
        return self.fault(asked)


def servers(world: World) -> None:
    chat, images = Moody(reply), Moody(tinted)
    with chat_server.serving(chat) as talker, images_server.serving(images) as painter:
        spec = json.dumps({**talker.spec, "retries": 1, "timeout_s": 3, "max_tokens": 100})
        place = [f"annotate.chat={spec}", f"edit.editors.images_api.base_url={painter.url}"]
        started = partial(Trial, world, "servers", *place, text=SERVED)
        reference(started())
        for which, server, faults in (("chat", chat, CHAT), ("images", images, IMAGES)):
            for kind in world.some(list(faults)):
                trial = started()
                server.will(faults[kind], 5)
                trial.strike(f"{which} server: {kind}", "annotate" if which == "chat" else "edit", at_next=True)
                trial.once()
                server.will(server.sound, 0)
                trial.finish(*(["--retry", "errors"] if kind in PERMANENT else []))
            trial = started()
            server.will(faults["503"], float("inf"))
            where = "annotate" if which == "chat" else "edit"
            trial.strike(f"{which} server: down for a whole run", where, at_next=True)
            trial.once()
            server.will(server.sound, 0)
            trial.finish()


# An object store


def store(world: World) -> None:
    import s3fs

    with ExitStack() as stack:
        url = stack.enter_context(object_store.seaweed(world.folder / "seaweed"))
        os.environ.update({**object_store.ENVIRONMENT, "AWS_ENDPOINT_URL": url})
        s3 = s3fs.S3FileSystem()
        s3.mkdir("bucket")
        for path in (world.folder / "photos").iterdir():
            s3.pipe(f"bucket/photos/{path.name}", path.read_bytes())
        source = "source.path=s3://bucket/photos"
        reference(Trial(world, "store", source, "pack.to=s3://bucket/sound"))
        for kind in (*world.some([f for f in object_store.FAULTS if f != "corrupt"]), "down"):
            for what in ("photographs", "shards"):
                trial = Trial(world, "store", source, f"pack.to=s3://bucket/{kind}-{what}")
                asked = "/bucket/photos" if what == "photographs" else f"/bucket/{kind}-{what}"
                with object_store.FaultyProxy(url, partial(plan, kind, asked)) as proxy:
                    trial.env |= {"AWS_ENDPOINT_URL": proxy.url, "AWS_MAX_ATTEMPTS": "2"}
                    where = "curate" if what == "photographs" else "pack"
                    trial.strike(f"S3, {what}: {KINDS[kind]}", where, at_next=True)
                    trial.once()
                    assert proxy.faults, f"no request for {asked}"
                    if kind == "down":
                        proxy.plan = lambda number, method, path: None
                    trial.finish()


KINDS = {
    "503": "throttled (503 SlowDown)",
    "reset": "connections reset",
    "cut": "bodies cut short",
    "slow": "slow answers",
    "down": "down for a whole run",
}


def plan(kind: str, asked: str, number: int, method: str, path: str) -> str | None:
    """Every third request for some objects fails; all fail if the store is down."""
    if asked not in path:
        return None
    if kind == "down":
        return "503"
    return kind if number % 3 == 0 and (kind != "cut" or method == "GET") else None


# The whole


SCENES: dict[str, Callable[[World], None]] = {
    "cluster": cluster,
    "machine": machine,
    "servers": servers,
    "tables": damage,
    "store": store,
    "editors": editors,
    "inputs": inputs,
}


def table(faults: Sequence[Fault]) -> str:
    """Markdown: a line per kind of fault."""
    kinds: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in sorted(faults, key=lambda fault: list(SCENES).index(fault.scene)):
        kinds[fault.scene, fault.kind].append(fault)
    lines = ["| fault | times | where it struck | runs of the command | identical |", "|---|---|---|---|---|"]
    for (_, kind), of in kinds.items():
        places = ", ".join(f"{where} {n}" if n > 1 else where for where, n in Counter(f.where for f in of).items())
        runs = sorted({fault.runs for fault in of})
        same = sum(fault.identical for fault in of)
        told = "yes" if same == len(of) else f"{same} of {len(of)}"
        lines.append(
            f"| {kind} | {len(of)} | {places} | {' to '.join(map(str, runs[:: len(runs) - 1 or 1]))} | {told} |"
        )
    return "\n".join(lines)


def chaos(world: World, scenes: Sequence[str]) -> list[Fault]:
    """Run the scenes; returns the faults with their outcomes. The world's folder keeps every run, and the log of every
    command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell would ignore it
    # Separate from other Ray clusters of this machine; its sockets need a short path.
    apart = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": apart.name}
    photos = world.folder / "photos"
    photos.mkdir(parents=True)
    for number in range(PHOTOS):
        (photos / f"{number:02d}.jpg").write_bytes(photo_bytes(number))
    reference(Trial(world, "plain"))
    with apart, ThreadPoolExecutor(1) as pool:
        beside = [pool.submit(SCENES[scene], world) for scene in scenes if scene != "cluster"]
        if "cluster" in scenes:
            cluster(world)  # Ray's nodes must be started in the main thread
        for done in beside:
            done.result()
    return world.faults


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SCENES), default=list(SCENES), metavar="SCENE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs and logs in this new folder")
    args = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        world = World(args.keep or Path(temporary), args.seed, args.share)
        try:
            chaos(world, args.only)
        finally:
            same = sum(fault.identical for fault in world.faults)
            print(table(world.faults))
            print(f"\n{len(world.faults)} faults, {same} builds identical, {time.monotonic() - began:.0f} s")
            if args.json:
                args.json.write_text(json.dumps([asdict(fault) for fault in world.faults], indent=1))
    return 0 if same == len(world.faults) else 1


if __name__ == "__main__":
    raise SystemExit(main())
