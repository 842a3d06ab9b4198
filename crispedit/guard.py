"""Runs a command until it ends or its caller is gone; then ends all of its processes.

    python -IS guard.py COMMAND ...

The caller holds the other end of stdin. When that is closed, on purpose or because the caller was killed, the command's
processes get SIGTERM, and SIGKILL after `GRACE_S`. The kernel also kills the command if this process is killed. Only
the standard library is imported, so it starts fast and needs little memory.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

GRACE_S = 5.0
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Called in the command's process before it starts, so that it is killed when the guard is gone. (Linux only.)"""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def to_group(group: int, number: int) -> bool:
    """Send a signal to all processes of the command; False if there are none left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # PermissionError: macOS, of a group of zombies
        return False
    return True


def main() -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        command = subprocess.Popen(
            sys.argv[1:],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            restore_signals=True,
            preexec_fn=prepare,
        )
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", flush=True)
        return 127
    while command.poll() is None:
        ready, _, _ = select.select([0], [], [], 0.1)
        if ready and not os.read(0, 1):
            break
    to_group(command.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and to_group(command.pid, 0):
        command.poll()
        time.sleep(0.02)
    to_group(command.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(GRACE_S)
    return command.returncode or 0


def prepare() -> None:
    """Called in the command's process before it starts: default signals, and its end with ours."""
    for usual in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(usual, signal.SIG_DFL)
    end_with_parent()


if __name__ == "__main__":
    sys.exit(main())
