"""Locks between processes, with and without `flock`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crispedit.shards.lock import locked

HOLD = """
import sys
import time
from pathlib import Path
from crispedit.shards import lock
lock.LEASE_S = 3.0
with lock.locked(Path(sys.argv[1]), "someone is there"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
NO_FLOCK = "#include <errno.h>\nint flock(int fd, int op) { errno = %s; return -1; }\n"


def hold(path: Path, **environment: str) -> subprocess.Popen:
    """A process that holds the lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), "60"], stdout=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert holder.stdout.readline() == b"held\n"
    return holder


def end(holder: subprocess.Popen) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()


@pytest.fixture(params=["ENOSYS", "EOPNOTSUPP"])
def no_flock(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A library to preload, with which `flock` fails as on a file system that has none."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc to build a library without flock")
    (tmp_path / "noflock.c").write_text(NO_FLOCK % request.param)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "noflock.so", tmp_path / "noflock.c"], check=True)
    return str(tmp_path / "noflock.so")


def test_a_second_process_is_kept_out_and_the_lock_dies_with_its_holder(tmp_path: Path):
    path = tmp_path / "new" / ".lock"
    holder = hold(path)
    with pytest.raises(ValueError, match="someone is there"), locked(path, "someone is there"):
        pass
    end(holder)
    with locked(path, "someone is there"):
        pass


def test_without_flock_too(tmp_path: Path, no_flock: str):
    path = tmp_path / ".lock"
    holder = hold(path, LD_PRELOAD=no_flock)
    second = [sys.executable, "-c", HOLD, str(path), "0"]
    environment = {**os.environ, "LD_PRELOAD": no_flock}
    try:
        kept_out = subprocess.run(second, capture_output=True, text=True, env=environment)
    finally:
        end(holder)
    assert "ValueError: someone is there" in kept_out.stderr
    after = subprocess.run(second, capture_output=True, text=True, env=environment)
    assert after.stdout == "held\n", after.stderr
