"""One step of a run as a command (`crispedit step NAME`, `select`, `pack`); what-if for `select`."""

import argparse
import sys
from collections import Counter

import pyarrow as pa

from crispedit.outcome import KEPT, NOT_REACHED, TRANSIENT
from crispedit.pipelines import audit, build, recipe, tables
from crispedit.pipelines.run import Run, run_in
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
    if name not in STEPS:
        steps = parser.add_subparsers(dest="step", required=True, metavar="STEP", help=", ".join(STEPS))
        for name, text in STEPS.items():
            add_arguments(steps.add_parser(name, help=text, description=text))
        return
    parser.set_defaults(step=name)
    build.add_recipe(parser)
    if name == build.SELECT:
        parser.add_argument("--dry-run", action="store_true", help="only show what the overrides would change")
    elif name != build.PACK:
        build.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Do the step on what earlier steps committed; after select and pack, show what was kept. The exit status is 1 if
    everything failed or nothing was kept."""
    made = Run(recipe.load(args.recipe, args.overrides))
    if getattr(args, "dry_run", False):
        print(what_if(run_in(made.root), made))
        return 0
    if args.step in (build.SELECT, build.PACK):
        build.step(made, args.step)
        return build.show(made)
    build.step(made, args.step, retry_errors=args.retry == "errors", log_json=args.log_json)
    failed = [group for group in audit.failures(made) if group.step.startswith(args.step)]
    if failed:
        print(audit.failures_text(failed))
    rows = tables.connect(made).execute(f"SELECT count(*) FROM {args.step}").fetchall()[0][0]
    why = ""
    if rows and rows == sum(group.rows for group in failed):
        why = f"every row of {args.step} failed"
    elif not rows and args.step != "compare":  # compare has no rows if each job has at most one passing candidate
        why = f"{args.step} had nothing to do: the steps before it kept nothing, as `crispedit audit` shows"
    if why:
        print(f"error: {why}", file=sys.stderr)
    return 1 if why else 0


MISSING = "missing"
"""The outcome of candidates that lack a score."""


def what_if(now: Run, then: Run) -> str:
    """What another recipe's bounds and quotas would keep of the run, from stored scores alone."""
    sources = source_verdicts(then, store=False)
    before, after = _outcomes(now, source_verdicts(now, store=False)), _outcomes(then, sources)
    rows = []
    for category in [*sorted({category for category, _ in before | after if category}), None]:
        old, new = before[category, KEPT], after[category, KEPT]
        rows.append([category or "total", old, new, f"{new - old:+d}", after[category, MISSING]])
    text = audit.table(["category", "kept", "would be kept", "change", "scores missing"], rows)
    if missing := after[None, MISSING]:
        db = tables.connect(then)
        measured = 'SELECT bool_or("{}.measured") FROM score'
        unmeasured = [f for f in then.recipe.pair_cascade.filters if not db.sql(measured.format(f)).fetchall()[0][0]]
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


def _uncompared(run: Run, sources: pa.Table) -> int:
    """Jobs that the judge has yet to decide."""
    if run.recipe.judge is None:
        return 0
    db = tables.connect(run)
    first_pass(run, db, sources)
    contests(db)
    return int(db.execute("SELECT count(*) FROM contests WHERE compared IS NULL").fetchall()[0][0])


def _outcomes(run: Run, sources: pa.Table) -> Counter[tuple[str | None, str]]:
    """Candidates by (category, outcome), of all categories under None."""
    verdicts = pair_verdicts(run, sources)
    counts: Counter[tuple[str | None, str]] = Counter()
    for row in verdicts.group_by(["category", "outcome"]).aggregate([("key", "count")]).to_pylist():
        outcome = MISSING if row["outcome"] in (NOT_REACHED, TRANSIENT) else row["outcome"]
        counts.update({(row["category"], outcome): row["key_count"], (None, outcome): row["key_count"]})
    return counts
