"""Progress of a build: a line on the terminal or in the log, a file in the run for `crispedit status`, and Ray's
metrics. The numbers of a run are not kept here; they are queries over its tables."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
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


@dataclass
class _Due:
    """A timer for something that is done at intervals."""

    seconds: float
    last: float = float("-inf")

    def __call__(self, now: float) -> bool:
        due = now - self.last >= self.seconds
        if due:
            self.last = now
        return due


class Progress:
    """Reports on a scheduler. `run`: the run's directory, or None to store nothing. `log_json`: write a JSON object per
    line to standard error, in place of text."""

    def __init__(self, run: Path | None = None, log_json: bool = False) -> None:
        self._path = None if run is None else run / FOLDER / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.json"
        self._json = log_json
        self._begun = time.time()
        self._store, self._log, self._show = _Due(STORED_SECONDS), _Due(LOGGED_SECONDS), _Due(SHOWN_SECONDS)
        self._log.last = time.monotonic()  # the first line is due after a minute
        self._past: deque[tuple[float, dict[str, int]]] = deque()
        self._metrics = _Metrics()
        self._terminal = console.shows_progress() and not log_json

    def __call__(self, scheduler: Scheduler) -> None:
        now = time.monotonic()
        if self._terminal and self._show(now):
            line = self._line(self._state(scheduler, now))
            print(f"\r{line[:150]:150}", end="", file=sys.stderr, flush=True)
        if self._store(now):
            state = self._state(scheduler, now)
            self._write(state)
            self._metrics(state)
        if not self._terminal and self._log(now):
            self._say(self._state(scheduler, now))

    def end(self, scheduler: Scheduler) -> None:
        state = self._state(scheduler, time.monotonic())
        self._write({**state, "ended": True})
        self._metrics(state)
        if self._terminal:
            print(f"\r{' ' * 150}\r", end="", file=sys.stderr, flush=True)
        elif self._json or time.time() - self._begun > LOGGED_SECONDS:
            self._say(state)

    def _say(self, state: dict[str, Any]) -> None:
        if self._json:
            print(json.dumps(state), file=sys.stderr, flush=True)
        elif not console.is_quiet():
            print(self._line(state), file=sys.stderr, flush=True)

    def _write(self, state: dict[str, Any]) -> None:
        if self._path is not None:
            with journal.replaced(self._path) as out:
                out.write(json.dumps(state, indent=1).encode())

    def _state(self, scheduler: Scheduler, now: float) -> dict[str, Any]:
        done = dict(scheduler.committed)
        if not self._past or now - self._past[-1][0] >= 1.0:
            self._past.append((now, done))
        while len(self._past) > 2 and now - self._past[1][0] > RATE_SECONDS:
            self._past.popleft()
        then, before = self._past[0]
        passed = max(now - then, 1e-9)
        stages: dict[str, dict[str, Any]] = {}
        for name, pool in scheduler.pools.items():
            stages[name] = {
                "processes": len(pool.processes) if pool.held else pool.blocks,
                "gpus": gpus_of(pool.stage),
                "waiting": scheduler.division.waiting(pool),
                "remaining": scheduler.flow.remaining(name),
                "done": pool.done_rows,
                "tried_again": pool.again_rows,
                "row_seconds": pool.row_seconds,
                "busy_seconds": round(pool.busy_seconds, 3),
                "held_seconds": round(pool.held_seconds, 3),
                "loading_seconds": round(pool.loading_seconds, 3),
                "left_seconds": scheduler.left_seconds(pool),
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


class _Metrics:
    """This build's metrics in Ray, if a Ray cluster is joined."""

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}

    def __call__(self, state: dict[str, Any]) -> None:
        if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
            return
        for step, rows in state["committed"].items():
            self._set("crispedit_committed_rows", "Rows committed by this driver.", rows, step=step)
        for name, stage in state["stages"].items():
            for key in ("processes", "waiting", "remaining", "busy_seconds", "held_seconds", "loading_seconds"):
                self._set(f"crispedit_{key}", f"{key.replace('_', ' ')} of a stage.", stage[key], stage=name)

    def _set(self, name: str, description: str, value: float, **tags: str) -> None:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description, tuple(tags))
        self._gauges[name].set(value, tags)


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
        try:
            stored.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
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

    @property
    def share(self) -> float | None:
        """Working time as a share of the held time; None if nothing was held."""
        return min(1.0, self.busy_s / self.held_s) if self.held_s else None

    @property
    def gpu_s(self) -> float:
        return self.held_s * self.gpus

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "share": self.share, "gpu_s": self.gpu_s}


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
    return list(totals.values())
