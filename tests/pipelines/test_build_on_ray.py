"""A build on Ray: on two nodes, with its driver killed, and as a submitted job; the same bytes as in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conftest import RECIPE, make_run
from test_build import parts, shard_bytes, statistics

from crispedit.pipelines import build
from crispedit.pipelines.run import Run

ROOT = Path(__file__).parents[2]


def test_ray_on_two_nodes_gives_the_same_shards(built: Run, photos: Path, tmp_path: Path, ray_nodes: None):
    run = make_run(tmp_path / "run", photos, "engine.kind=ray")
    build.build(run)
    assert shard_bytes(run) == shard_bytes(built)
    assert statistics(run) == statistics(built)


def start(run: Run, *overrides: str) -> subprocess.Popen[bytes]:
    recipe = run.root.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    source = f"source.path={run.recipe.source.path}"
    with said(run).open("wb") as stderr:  # a pipe that nobody reads would stop it
        return subprocess.Popen(
            [sys.executable, "pipelines/build.py", str(recipe), f"run={run.root}", source, *overrides],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )


def said(run: Run) -> Path:
    """What the build that was started last has said."""
    return run.root.with_suffix(".stderr")


def kill_at(process: subprocess.Popen[bytes], run: Run, reached: int, pause_s: float) -> None:
    """kill -9 a little after so many parts (and shards) are there."""
    while process.poll() is None:
        if parts(run) + len(list(run.folder("shards").glob("*.tar"))) >= reached:
            time.sleep(pause_s)
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_driver_takes_its_workers_along_and_the_run_continues(built: Run, photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "engine.kind=ray")
    process = start(run, "engine.kind=ray")
    kill_at(process, run, 6, pause_s=0.2)
    deadline = time.monotonic() + 120
    while (left := _workers(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "what could still write for the killed driver is still there"
    os.killpg(process.pid, signal.SIGKILL)  # Ray's idle agents, which outlive a killed raylet
    finished = start(run, "engine.kind=ray")
    assert finished.wait() == 0, said(run).read_text()
    assert shard_bytes(run) == shard_bytes(built)
    assert statistics(run) == statistics(built)


def _workers(session: int) -> list[str]:
    """Processes of a session that still run, but for Ray's agents and zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z" and "Agent" not in command:
            found.append(command)
    return found


def test_a_submitted_job_builds_on_a_running_cluster(built: Run, photos: Path, tmp_path: Path):
    """`ray job submit --working-dir . -- python pipelines/build.py ...`, against a head node started for it."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    run = make_run(tmp_path / "run", photos)
    ports = {"--port": "26379", "--dashboard-port": "28265", "--ray-client-server-port": "20001"}
    ports |= {"--dashboard-agent-listen-port": "28266", "--dashboard-agent-grpc-port": "28267"}
    # Ray's sockets lie in its folder, and a socket's path may have 107 bytes at most.
    env = {**os.environ, "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-"), "RAY_AUTH_MODE": "disabled"}
    ray = str(Path(sys.executable).with_name("ray"))
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--num-cpus=2", *(f"{k}={v}" for k, v in ports.items())],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        submit = [ray, "job", "submit", "--address", "http://127.0.0.1:28265", "--working-dir", str(_package(tmp_path))]
        command = ["--", sys.executable, "pipelines/build.py", str(recipe), f"run={run.root}", f"source.path={photos}"]
        for _ in range(20):
            done = subprocess.run([*submit, *command, "engine.kind=ray"], capture_output=True, text=True, env=env)
            if "submitted successfully" in done.stderr + done.stdout:  # else the head is still starting
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # the whole session: a head told to stop takes its time
        head.wait()
    assert "kept" in done.stdout
    assert shard_bytes(run) == shard_bytes(built)


def _package(tmp_path: Path) -> Path:
    """The checkout as a user would submit it: the tracked sources, without environments and runs."""
    import shutil

    folder = tmp_path / "checkout"
    for name in ("crispedit", "filters", "shards", "pipelines", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
