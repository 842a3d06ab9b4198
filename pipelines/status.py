"""status: what a run has, and what its build is doing, from the run's directory alone."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from crispedit.pipelines import audit, progress, recipe, tables
from crispedit.pipelines.progress import StageTotal
from crispedit.pipelines.run import Run

SILENT_SECONDS = 60.0
"""A driver that has been silent for this long has probably ended."""
STEPS = ("curate", "annotate", "edit", "score", "compare")


def status(run: Run) -> dict[str, Any]:
    """Rows per step and outcome, errors by kind, seconds by stage, and the driver's last report."""
    db = tables.connect(run)
    rows: dict[str, dict[str, int]] = {}
    for step in STEPS:
        columns = {name for (name, *_) in db.execute(f"DESCRIBE {step}").fetchall()}
        transient = "coalesce(transient, false)" if "transient" in columns else "false"
        error = "error IS NOT NULL" if "error" in columns else "false"
        refusal = "refusal IS NOT NULL" if "refusal" in columns else "false"
        counts = db.execute(
            f"SELECT count(*), count(*) FILTER ({error} AND NOT {transient}), "
            f"count(*) FILTER ({error} AND {transient}), count(*) FILTER ({refusal}) FROM {step}"
        ).fetchall()[0]
        rows[step] = dict(zip(("rows", "error", "transient", "refused"), counts, strict=True))
    sessions = progress.sessions(run.root)
    stages = progress.stage_totals(run.root)
    return {
        "run": str(run.root),
        "rows": rows,
        "errors": [vars(group) for group in audit.failures(run, db)],
        "stages": stages,
        "gpu_seconds": sum(stage.gpu_s for stage in stages),
        "driver": sessions[-1] if sessions else None,
    }


def text(state: dict[str, Any]) -> str:
    driver = state["driver"]
    rates = {} if driver is None or driver["ended"] else driver["rows_per_second"]
    lines = [["step", "rows", "refused", "error", "transient", "rows/s now"]]
    for step, counts in state["rows"].items():
        numbers = [str(counts[name]) for name in ("rows", "refused", "error", "transient")]
        lines.append([step, *numbers, f"{rates[step]:.3g}" if step in rates else "-"])
    parts = [audit.table(lines)]
    if state["stages"]:
        parts.append(audit.stages_text(state["stages"]))
    parts.append(f"GPU-seconds held: {state['gpu_seconds']:.0f}")
    if state["errors"]:
        parts.append(audit.failures_text([audit.Failures(**group) for group in state["errors"]]))
    parts.append(_driver_text(driver))
    return "\n\n".join(parts)


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
    if not (args.run / "recipe.yaml").exists():
        raise ValueError(f"{args.run} is not a run: it has no recipe.yaml")
    state = status(Run(recipe.load(str(args.run), [f"run={args.run}"])))
    print(json.dumps(state, default=StageTotal.to_json, indent=1) if args.json else text(state))
    return 0
