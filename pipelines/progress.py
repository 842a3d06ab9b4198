"""Progress of a build: a line on the terminal or in the log, a file in the run for `crispedit status`, and Ray's
metrics. The numbers of a run are not kept here; they are queries over its tables."""

import json
import math
import os
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispedit import console
from crispedit.pipelines.scheduling.flow import gpus_of
from crispedit.pipelines.scheduling.scheduler import Scheduler
from crispedit.shards import journal

FOLDER = "progress"
STORED_SECONDS = 10.0
LOGGED_SECONDS = 60.0
SHOWN_SECONDS = 0.5
RATE_SECONDS = 300.0
"""Seconds over which rates are measured."""
SECONDS = ("busy_seconds", "held_seconds", "loading_seconds")
"""A pool's totals: how long its processes worked, held their CPUs and GPUs, and loaded."""


class Progress:
    """Reports on a scheduler. `run`: the run's directory, or None to store nothing. `log_json`: write a JSON object per
    line to standard error, in place of text."""

    def __init__(self, run: Path | None = None, log_json: bool = False) -> None:
        self._path = None if run is None else run / FOLDER / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.json"
        self._json = log_json
        self._begun = time.time()
        self._terminal = console.shows_progress() and not log_json
        told = {"show": SHOWN_SECONDS} if self._terminal else {"log": LOGGED_SECONDS}
        self._intervals = {"store": STORED_SECONDS, **told}
        self._last = {"log": time.monotonic()}  # the first line is due after a minute
        self._past: deque[tuple[float, dict[str, int]]] = deque()
        self._gauges: dict[str, Any] = {}

    def __call__(self, scheduler: Scheduler) -> None:
        now = time.monotonic()
        due = [what for what, seconds in self._intervals.items() if now - self._last.get(what, -math.inf) >= seconds]
        if not due:
            return
        self._last.update(dict.fromkeys(due, now))
        state = self._state(scheduler, now)
        if "store" in due:
            self._store(state)
        if "show" in due:
            print(f"\r{self._line(state)[:150]:150}", end="", file=sys.stderr, flush=True)
        if "log" in due:
            self._say(state)

    def end(self, scheduler: Scheduler) -> None:
        state = {**self._state(scheduler, time.monotonic()), "ended": True}
        self._store(state)
        if self._terminal:
            print(f"\r{' ' * 150}\r", end="", file=sys.stderr, flush=True)
        elif self._json or time.time() - self._begun > LOGGED_SECONDS:
            self._say(state)

    def _say(self, state: dict[str, Any]) -> None:
        if self._json or not console.is_quiet():
            print(json.dumps(state) if self._json else self._line(state), file=sys.stderr, flush=True)

    def _store(self, state: dict[str, Any]) -> None:
        """Write the state into the run, and into Ray's metrics if a Ray cluster is joined."""
        if self._path is not None:
            with journal.replaced(self._path) as out:
                out.write(json.dumps(state, indent=1).encode())
        if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
            return
        for step, rows in state["committed"].items():
            self._gauge("committed_rows", "Rows committed by this driver.", rows, step=step)
        for name, stage in state["stages"].items():
            for key in ("processes", "waiting", "remaining", *SECONDS):
                self._gauge(key, f"{key.replace('_', ' ')} of a stage.", stage[key], stage=name)

    def _gauge(self, name: str, description: str, value: float, **tags: str) -> None:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(f"crispedit_{name}", description, tuple(tags))
        self._gauges[name].set(value, tags)

    def _state(self, scheduler: Scheduler, now: float) -> dict[str, Any]:
        done = dict(scheduler.committed)
        if not self._past or now - self._past[-1][0] >= 1.0:
            self._past.append((now, done))
        while len(self._past) > 2 and now - self._past[1][0] > RATE_SECONDS:
            self._past.popleft()
        then, before = self._past[0]
        passed = max(now - then, 1e-9)
        stages: dict[str, dict[str, Any]] = {
            name: {
                "processes": len(pool.processes) if pool.held else pool.blocks,
                "gpus": gpus_of(pool.stage),
                "waiting": scheduler.division.waiting(pool),
                "remaining": scheduler.flow.remaining(name),
                "done": pool.done_rows,
                "tried_again": pool.again_rows,
                "row_seconds": pool.row_seconds,
                **{total: round(getattr(pool, total), 3) for total in SECONDS},
                "left_seconds": scheduler.left_seconds(pool),
            }
            for name, pool in scheduler.pools.items()
        }
        return {
            "started": self._begun,
            "updated": time.time(),
            "ended": False,
            "committed": done,
            "rows_per_second": {
                step: (rows - before.get(step, 0)) / passed if len(self._past) > 1 else 0.0
                for step, rows in done.items()
            },
            "eta_seconds": max((s["left_seconds"] for s in stages.values()), default=0.0),
            "stages": stages,
        }

    @staticmethod
    def _line(state: dict[str, Any]) -> str:
        steps = ", ".join(
            f"{step} {rows:,} ({state['rows_per_second'][step]:.3g}/s)" for step, rows in state["committed"].items()
        )
        return f"{steps or 'starting'}; about {duration(state['eta_seconds'])} left"


def duration(seconds: float) -> str:
    """Such as "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def sessions(run: Path) -> list[dict[str, Any]]:
    """The state that each driver of a run has stored, the latest last. Damaged files are skipped, because nothing
    depends on them."""
    stored = []
    for path in sorted((run / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError):
            stored.append(json.loads(path.read_text()))
    return stored


@dataclass
class StageTotal:
    """Totals of a stage of a run, over all its builds."""

    stage: str
    gpus: float = 0.0
    """GPUs of each of its processes."""
    rows: int = 0
    wall_s: float = 0.0
    """Total duration of the builds with this stage."""
    busy_s: float = 0.0
    loading_s: float = 0.0
    held_s: float = 0.0
    """Total seconds that its processes worked, loaded, and held their CPUs and GPUs."""
    share: float | None = None
    """Working time as a share of the held time; None if nothing was held."""
    gpu_s: float = 0.0


def stage_totals(run: Path) -> list[StageTotal]:
    """The totals of every stage in a run's builds, in the order of the work."""
    totals: dict[str, StageTotal] = {}
    for session in sessions(run):
        for name, stage in session["stages"].items():
            total = totals.setdefault(name, StageTotal(name, stage["gpus"]))
            total.rows += stage["done"]
            total.wall_s += session["updated"] - session["started"]
            total.busy_s += stage["busy_seconds"]
            total.loading_s += stage["loading_seconds"]
            total.held_s += stage["held_seconds"]
    for total in totals.values():
        total.share = min(1.0, total.busy_s / total.held_s) if total.held_s else None
        total.gpu_s = total.held_s * total.gpus
    return list(totals.values())
