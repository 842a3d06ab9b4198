"""Runs a command until it ends or its caller is gone; then ends all of its processes.

    python -IS guard.py COMMAND ...

The caller holds the other end of stdin. When that is closed, on purpose or because the caller was killed, the processes
of this group get SIGTERM, and after `GRACE_S` whatever is left of the command is killed. On Linux this includes
processes that have left the group, and the kernel kills the command if this process is killed. Only the standard
library is imported, so it starts fast and needs little memory.
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
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def tell_kernel(option: int, value: int) -> None:
    """Set an attribute of this process. (Linux only.)"""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def reap(command: subprocess.Popen[bytes]) -> bool:
    """Reap children that have ended; False if none is left."""
    with contextlib.suppress(ChildProcessError):
        while child := os.waitpid(-1, os.WNOHANG):
            if not child[0]:
                return True
            if child[0] == command.pid:
                command.returncode = os.waitstatus_to_exitcode(child[1])
    return False


def children(command: subprocess.Popen[bytes]) -> list[int]:
    """The remaining children; on Linux, also those whose own parent has ended."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [command.pid]


def main() -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    tell_kernel(PR_SET_CHILD_SUBREAPER, 1)
    try:
        command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, restore_signals=True, preexec_fn=prepare)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", flush=True)
        return 127
    while reap(command) and command.returncode is None:
        ready, _, _ = select.select([0], [], [], 0.1)
        if ready and not os.read(0, 1):
            break
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while reap(command) and time.monotonic() < deadline:
        time.sleep(0.02)
    while reap(command) and time.monotonic() < deadline + GRACE_S:
        for child in children(command):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return command.returncode or 0


def prepare() -> None:
    """Called in the command's process before it starts: default signals, and its end with ours."""
    for usual in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(usual, signal.SIG_DFL)
    tell_kernel(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
