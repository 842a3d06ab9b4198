"""status: what a run has, and what its build is doing, from the run's directory alone."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from crispedit.pipelines import audit, progress, tables
from crispedit.pipelines.run import Run, run_in

NO_ERRORS = "SELECT NULL AS error, false AS transient, NULL AS refusal WHERE false"
"""The columns that not all tables have."""
SILENT_SECONDS = 60.0
"""A driver that has been silent for this long has probably ended."""


def status(run: Run) -> dict[str, Any]:
    """Rows per step and outcome, errors by kind, seconds by stage, and the driver's last report."""
    db = tables.connect(run)
    rows: dict[str, dict[str, int]] = {}
    for step in ("curate", "annotate", "edit", "score", "compare"):
        [rows[step]] = tables.rows(
            db,
            "SELECT count(*) AS rows, count(error) FILTER (transient IS NOT TRUE) AS error, "
            "count(error) FILTER (transient) AS transient, count(refusal) AS refused "
            f"FROM (FROM {step} UNION ALL BY NAME {NO_ERRORS})",
        )
    sessions = progress.sessions(run.root)
    stages = progress.stage_totals(run.root)
    return {
        "run": str(run.root),
        "rows": rows,
        "errors": audit.failures(run, db),
        "stages": stages,
        "gpu_seconds": sum(stage.gpu_s for stage in stages),
        "driver": sessions[-1] if sessions else None,
    }


def text(state: dict[str, Any]) -> str:
    driver = state["driver"]
    rates = {} if driver is None or driver["ended"] else driver["rows_per_second"]
    names = ("rows", "refused", "error", "transient")
    steps = [[step, *(counts[name] for name in names), rates.get(step)] for step, counts in state["rows"].items()]
    parts = [
        audit.table(["step", *names, "rows/s now"], steps),
        audit.stages_text(state["stages"]),
        f"GPU-seconds held: {state['gpu_seconds']:.0f}",
        audit.failures_text(state["errors"]),
        _driver_text(driver),
    ]
    return "\n\n".join(filter(None, parts))


def _driver_text(driver: dict[str, Any] | None) -> str:
    if driver is None:
        return "No build has worked on this run yet."
    ago = time.time() - driver["updated"]
    if driver["ended"]:
        return f"No build is at work; the last one ended {progress.duration(ago)} ago."
    if ago > SILENT_SECONDS:
        return (
            f"The build last reported {progress.duration(ago)} ago, so it has probably ended. "
            "The same command continues it."
        )
    return f"A build is at work; about {progress.duration(driver['eta_seconds'])} left of what is listed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the run's directory")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    state = status(run_in(args.run))
    print(json.dumps(state, default=vars, indent=1) if args.json else text(state))
    return 0
