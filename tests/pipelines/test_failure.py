"""How a command ends that cannot go on: one sentence with the way out, and exit status 2."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from bad_inputs import encode, photo

from crispedit.pipelines import cli, failure

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from crispedit.pipelines import cli
raise SystemExit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Overrides of the embedded recipe: one photograph, one edit."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(encode(photo("a", 320, 240), "JPEG"))
    return [f"source.path={tmp_path / 'photos'}", "curate.filters={}", "categories={style: 1}", "engine.kind=inprocess"]


def without(package: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command in a process that has no such package."""
    return subprocess.run([sys.executable, "-c", WITHOUT, package, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("package", "arguments", "remedy"),
    [
        ("torch", ("train", "tiny", "shards=x", "run={}"), "'crispedit[train]'"),
        ("s3fs", ("step", "curate", "embedded", "source.path=s3://bucket/photos", "run={}"), "'crispedit[s3]'"),
    ],
)
def test_a_package_that_is_missing_is_named_with_what_installs_it(tmp_path, package, arguments, remedy):
    ended = without(package, *(argument.format(tmp_path / "run") for argument in arguments))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"pip install {remedy}" in ended.stderr


@pytest.mark.parametrize("place", ["/sys/crispedit", "/proc/crispedit", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_is_named(photos, place, capsys):
    assert cli.main(["build", "embedded", *photos, f"run={place}"]) == 2
    told = capsys.readouterr().err
    assert place in told
    assert told.count("\n") == 1
    assert "Traceback" not in told


def test_traceback_shows_where(photos, capsys):
    arguments = ["build", "embedded", *photos, "run=/sys/crispedit"]
    for given in (["--traceback", *arguments], [*arguments, "--traceback"]):
        assert cli.main(given) == 2
        told = capsys.readouterr().err
        assert "Traceback (most recent call last)" in told
        assert told.splitlines()[-1].startswith("error: /sys/crispedit: ")


def test_a_full_disk_names_the_file(tmp_path, photos, capsys):
    """A real one of two megabytes, where the system lets us have it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        assert cli.main(["build", "embedded", *photos, f"run={disk / 'run'}"]) == 2
    finally:
        subprocess.run(["umount", disk], check=True)
    told = capsys.readouterr().err
    assert str(disk) in told
    assert "the disk is full" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "filters", ["{{dino: {{model: vit_tiny_patch16_224, weights: {0}}}}}", "{{dino: {{model: {1}}}}}"]
)
def test_broken_weights_are_named(tmp_path, photos, filters, capsys):
    weights, folder = tmp_path / "bad.safetensors", tmp_path / "model"
    weights.write_bytes(os.urandom(500))
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(500))
    given = f"filters={filters.format(weights, folder)}"
    run = f"run={tmp_path / 'run'}"
    assert cli.main(["build", "embedded", *photos, run, given]) == 2
    told = capsys.readouterr().err
    assert str(weights if "weights:" in filters else folder) in told
    assert told.count("\n") == 1


def test_sigterm_is_one_line(tmp_path, photos):
    for number in range(40):  # a build that does not end before it is told to
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encode(photo(str(number), 320, 240), "JPEG"))
    command = [sys.executable, "-m", "crispedit.pipelines.cli", "build", "embedded", *photos]
    building = subprocess.Popen(
        [*command, f"run={tmp_path / 'run'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "curate").exists():
        assert building.poll() is None
        time.sleep(0.05)
    building.send_signal(signal.SIGTERM)
    _, told = building.communicate(timeout=300)
    assert building.returncode == cli.STOPPED == 143
    assert told.splitlines()[-1] == "stopped by SIGTERM; run the same command again to continue"
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("whom", "number", "status", "word"),
    [("raylet", signal.SIGKILL, None, "Ray cluster"), ("driver", signal.SIGTERM, cli.STOPPED, "SIGTERM")],
)
def test_a_build_on_ray_has_a_last_word(tmp_path, photos, whom, number, status, word):
    """Ray ends a driver that has lost its raylet, without a word, or lets it know and goes on to show its own log."""
    command = [sys.executable, "-m", "crispedit.pipelines.cli", "build", "embedded", *photos]
    given = [f"run={tmp_path / 'run'}", "engine.kind=ray", "engine.cpus=1"]
    building = subprocess.Popen([*command, *given], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (tmp_path / "run" / "progress").exists():
            assert building.poll() is None
            time.sleep(0.05)
        os.kill(building.pid if whom == "driver" else raylet_of(building.pid), number)
        told = building.stderr.read()  # to its end: the last word comes from another process
        assert building.wait(timeout=300) == status or (status is None and building.returncode)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(building.pid, signal.SIGKILL)
    [said] = [line for line in told.splitlines() if line.endswith("; run the same command again to continue")]
    assert word in said


def raylet_of(session: int) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")[0]
            if command.endswith(b"/raylet") and os.getsid(int(folder.name)) == session:
                return int(folder.name)
    raise AssertionError("there is no raylet")


@pytest.mark.parametrize(
    ("signalled", "status"), [(KeyboardInterrupt(), cli.INTERRUPTED), (cli.Stopped(), cli.STOPPED)]
)
def test_a_signal_inside_compiled_code_is_told_as_one(monkeypatch, capsys, signalled, status):
    """As CPython raises it where compiled code goes on after a signal's handler has raised."""

    def wait(*given):
        raise SystemError("CoreWorker.wait returned a result with an exception set") from signalled

    monkeypatch.setattr(cli, "_run", wait)
    assert cli.main(["status", "x"]) == status
    assert capsys.readouterr().err.endswith("; run the same command again to continue\n")


class RayletDiedError(Exception):
    """As Ray raises it."""


RayletDiedError.__module__ = "ray.exceptions"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/runs/a.tar"), "/runs/a.tar: the disk is full"),
        (OSError(errno.EDQUOT, "Quota exceeded", "/home/a"), "/home/a: your quota is used up"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), "/runs: not permitted"),
        (OSError(errno.EROFS, "Read-only file system", "/runs"), "/runs: the file system is read-only"),
        (OSError(errno.ENOSYS, "Function not implemented", "/lustre/.lock"), "/lustre/.lock: the file system there"),
        (OSError(errno.EFBIG, "File too large", "/runs/a.tar"), "ulimit -f"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a.yaml"), "/a.yaml: there is no such file"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "run the same command again"),
        (MemoryError(), "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ImportError("Install s3fs to access S3"), "pip install 'crispedit[s3]'"),
        (ImportError('Please install gcsfs to access "gs"'), "pip install 'crispedit[gcs]'"),
        (ModuleNotFoundError("No module named 'faiss'", name="faiss"), "pip install 'crispedit[semantic]'"),
        (ModuleNotFoundError("No module named 'mine.parts'", name="mine.parts"), "pip install mine"),
        (RayletDiedError("The raylet died"), "the Ray cluster was lost or failed"),
        (ValueError("a.yaml: run: is missing"), "a.yaml: run: is missing"),
        (KeyError("left"), "please report it"),
    ],
)
def test_what_the_system_refuses_is_said_with_the_way_out(error, told):
    said = failure.sentence(error)
    assert told in said
    assert "\n" not in said


def test_the_cause_is_what_counts():
    error = RuntimeError("the task failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/runs/a.tar")
    assert failure.sentence(error).startswith("/runs/a.tar: the disk is full")


def test_every_extra_that_is_named_exists():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in text for extra in failure.EXTRAS.values())
