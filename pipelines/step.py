"""One step of a run as a command (`crispedit step NAME`, `select`, `pack`); what-if for `select`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import pyarrow as pa

from crispedit.outcome import KEPT, NOT_REACHED, TRANSIENT
from crispedit.pipelines import audit, build, recipe, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import contests, first_pass, pair_verdicts, source_verdicts

STEPS = {
    "curate": "normalise and measure photographs",
    "annotate": "write edit jobs for kept photographs",
    "edit": "make the candidates of every job",
    "score": "measure candidates",
    "compare": "let the judge compare each job's passing candidates",
    "select": "choose pairs by bounds, duplicates and quotas",
    "pack": "write the chosen pairs as WebDataset shards",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `crispedit step NAME`, `crispedit select` and `crispedit pack`."""
    name = parser.prog.split()[-1]
    if name in STEPS:
        _add_step_arguments(parser, name)
        return
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP", help=", ".join(STEPS))
    for name, text in STEPS.items():
        _add_step_arguments(steps.add_parser(name, help=text, description=text), name)


def _add_step_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.set_defaults(step=name)
    build.add_recipe(parser)
    if name == "select":
        parser.add_argument("--dry-run", action="store_true", help="only show what the overrides would change")
    elif name != "pack":
        build.add_retry(parser)
        build.add_log_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do the step on what earlier steps committed; after select and pack, show what was kept. The exit status is 1 if
    everything failed or nothing was kept."""
    made = Run(recipe.load(args.recipe, args.overrides))
    if getattr(args, "dry_run", False):
        print(what_if(Run(recipe.load(str(made.root))), made))
        return 0
    build.step(
        made,
        args.step,
        retry_errors=getattr(args, "retry", None) == "errors",
        log_json=getattr(args, "log_json", False),
    )
    if args.step in ("select", "pack"):
        return build.show(made)
    failed = [group for group in audit.failures(made) if group.step.startswith(args.step)]
    if failed:
        print(audit.failures_text(failed))
    rows = tables.connect(made).execute(f"SELECT count(*) FROM {args.step}").fetchall()[0][0]
    if rows and rows == sum(group.rows for group in failed):
        print(f"error: every row of {args.step} failed", file=sys.stderr)
        return 1
    if not rows and args.step != "compare":  # compare has no rows if each job has at most one passing candidate
        print(
            f"error: {args.step} had nothing to do: the steps before it kept nothing, as `crispedit audit` shows",
            file=sys.stderr,
        )
        return 1
    return 0


LACKING = (NOT_REACHED, TRANSIENT)
"""The outcomes of candidates with a missing score."""


def what_if(now: Run, then: Run) -> str:
    """What another recipe's bounds and quotas would keep of the run, from stored scores alone."""
    sources = source_verdicts(then, store=False)
    before, after = _outcomes(now, source_verdicts(now, store=False)), _outcomes(then, sources)
    rows = [["category", "kept", "would be kept", "change", "scores missing"]]
    categories = sorted({category for category, _ in before | after})
    for category in [*categories, None]:
        old, new = (
            sum(n for (c, outcome), n in verdicts.items() if outcome == KEPT and category in (c, None))
            for verdicts in (before, after)
        )
        unknown = sum(n for (c, o), n in after.items() if o in LACKING and category in (c, None))
        rows.append([category or "total", str(old), str(new), f"{new - old:+d}", str(unknown)])
    text = audit.table(rows)
    missing = sum(n for (_, outcome), n in after.items() if outcome in LACKING)
    if missing:
        unmeasured = [name for name in then.recipe.pair_cascade.filters if not _has_measured(then, name)]
        why = (
            f"{' and '.join(unmeasured)} has measured nothing of this run yet, so how many they would keep is not known"
            if unmeasured
            else "they failed an earlier bound and were not measured further"
        )
        text += (
            f"\n{missing} candidates lack a score that these bounds ask for: {why}."
            f"\n`crispedit step score` with the same overrides measures those {missing} only."
        )
    if uncompared := _uncompared(then, sources):
        text += (
            f"\n{uncompared} jobs have other passing candidates than the judge has compared: here scores decide."
            f"\n`crispedit step compare` with the same overrides compares those {uncompared} only."
        )
    return text


def _has_measured(run: Run, name: str) -> bool:
    counts = tables.connect(run).execute(f'SELECT count(*) FROM score WHERE "{name}.measured"').fetchall()
    return bool(counts[0][0])


def _uncompared(run: Run, sources: pa.Table) -> int:
    """Jobs that the judge has yet to decide."""
    if run.recipe.judge is None:
        return 0
    db = tables.connect(run)
    first_pass(run, db, sources)
    contests(db)
    return int(db.execute("SELECT count(*) FROM contests WHERE compared IS NULL").fetchall()[0][0])


def _outcomes(run: Run, sources: pa.Table) -> Counter[tuple[str, str]]:
    verdicts = pair_verdicts(run, sources)
    counted = verdicts.group_by(["category", "outcome"]).aggregate([("key", "count")])
    return Counter({(row["category"], row["outcome"]): row["key_count"] for row in counted.to_pylist()})
