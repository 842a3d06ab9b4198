"""A model server that we run: started by a command, watched, restarted when it dies or hangs, and stopped.

It inherits the environment of its process, so on Ray it sees that process's GPUs (CUDA_VISIBLE_DEVICES). It runs under
`crispedit.guard`, so it ends when this process does, even if this process is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path

from crispedit import guard
from crispedit.outcome import Transient

PORT = "{port}"
HEALTH_S = 10.0
"""Seconds within which a healthy server answers GET /health."""
AGAIN_S = 30.0
"""Seconds after a failed start before the next try: all requests under way share the failure."""
LINES = 20
"""Lines of the server's log that an error quotes."""
TAKEN = re.compile(r"address already in use|EADDRINUSE", re.IGNORECASE)

_LIVING: weakref.WeakSet[ManagedServer] = weakref.WeakSet()


class NotServingError(Transient, ValueError):
    """The server does not start. Before a build begins this is a mistake in the recipe (ValueError); later it is
    transient."""


class ManagedServer:
    """One server of this process, used by several threads."""

    def __init__(self, command: str, start_s: float) -> None:
        self.command, self.start_s = command, start_s
        self._lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self._port = 0
        self._log: deque[str] = deque(maxlen=LINES)
        self.reader: threading.Thread | None = None
        self._answered_s = 0.0
        self._failure: tuple[float, NotServingError] | None = None
        _LIVING.add(self)

    def url(self) -> str:
        """The server's URL; starts it if it does not run. NotServingError, with the end of its log, if it does not
        start."""
        with self._lock:
            if self.process is None or self.process.poll() is not None:
                self._restart()
            return self._url

    def look_after(self, url: str, waited_since: float | None) -> None:
        """Call this when a request to `url` was not answered. Restarts the server if it has died, does not answer GET
        /health, or let this request time out and has answered no other since `waited_since` (monotonic clock). A later
        call with the same URL does nothing more."""
        with self._lock:
            if url != self._url:
                return
            runs = self.process is not None and self.process.poll() is None
            hangs = waited_since is not None and self._answered_s < waited_since
            if not runs or hangs or not self._healthy(HEALTH_S):
                self._restart()

    def answered(self) -> None:
        """Note that the server has just answered a request."""
        self._answered_s = time.monotonic()

    def stop(self) -> None:
        with self._lock:
            self._stop()

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def _restart(self) -> None:
        if self._failure is not None and time.monotonic() - self._failure[0] < AGAIN_S:
            raise self._failure[1]
        self._stop()
        try:
            status = self._start()
            if status is not None and TAKEN.search(self.log):
                status = self._start()
            if status is not None:
                raise self._not_serving(f"ended with status {status}")
        except BaseException as error:
            self._stop()
            if isinstance(error, NotServingError):
                self._failure = time.monotonic(), error
            raise
        self._failure = None

    def _start(self) -> int | None:
        """Start the server and wait until it is healthy; its status if it ends before that."""
        self._port = _free_port()
        self._log.clear()
        words = [word.replace(PORT, str(self._port)) for word in shlex.split(self.command)]
        # Commands beside the interpreter are found, as in an activated environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        self.process = process = subprocess.Popen(
            [sys.executable, "-IS", guard.__file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
        self.reader = threading.Thread(target=_drain, args=(process, self._log), daemon=True)
        self.reader.start()
        deadline = time.monotonic() + self.start_s
        while process.poll() is None:
            if self._healthy(1.0):
                self._answered_s = time.monotonic()
                return None
            if time.monotonic() > deadline:
                raise self._not_serving(f"does not answer after {self.start_s:g} s (start_s)")
            time.sleep(0.1)
        self._stop()  # and have its last words
        return process.returncode

    def _healthy(self, within_s: float) -> bool:
        """Whether the server answers GET /health without a server error; a 404 counts as healthy."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=within_s)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _stop(self) -> None:
        """End all of its processes, and read what they have said to the end."""
        if self.process is None or self.process.stdin is None or self.reader is None:
            return
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(3 * guard.GRACE_S)
        # The guard's group outlives it where it was killed itself.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(guard.GRACE_S)
        self.process = None

    def _not_serving(self, what: str) -> NotServingError:
        log = self.log.strip() or "nothing"
        return NotServingError(f"the server `{self.command}` {what}. The end of its log:\n{log}")

    @property
    def log(self) -> str:
        """The last lines that the server wrote."""
        return "".join(self._log)


def stop_all() -> None:
    for server in list(_LIVING):
        server.stop()


def _drain(process: subprocess.Popen[str], log: deque[str]) -> None:
    """Read a server's output, so that it never blocks; the last lines are kept."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            log.append(line[:1000])


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
