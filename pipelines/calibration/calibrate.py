"""crispedit calibrate: measures how well a recipe's filters separate good and bad pairs, and learns bounds.

    crispedit calibrate quality source.path=photos run=runs/calibration     on known defects
    crispedit calibrate runs/mine                                           on its labels, which `crispedit view` writes
    crispedit calibrate runs/mine --labels labels.jsonl --group repo        on other labels
    crispedit calibrate --flips before.json after.json                      which verdicts two versions differ on

Known defects: the good pairs are a run's candidates, whatever their verdict (edits are made first if the run has none),
or those of a shard set (`--pairs`). Each defect of `defects.py` is applied to each of them. Bounds are learned on one
half of the photographs and tested on the other, and vice versa. Semantic defects, which single pixels cannot show, are
reported by the scores without a bound (`clip`, `instruction`).

Labels: JSON lines or CSV with the pair's key, id or uri and a verdict. Each group of pairs (`--group`, such as the
editing model) is judged by bounds learned on the other groups.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from crispedit.outcome import KEPT
from crispedit.pipelines import recipe
from crispedit.pipelines.calibration import known_defects, labelled, labels, measured, text
from crispedit.pipelines.calibration.judgement import Agreement, flips
from crispedit.pipelines.calibration.labels import Label
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.shards import journal

LABELS = "labels.csv"
"""The file in a run's folder where `crispedit view` keeps labels."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe, a shipped recipe's name or a run; or verdicts: a run or a report")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe values, such as run=DIR")
    parser.add_argument("--pairs", metavar="SHARDS", help="take the good pairs from this shard set")
    parser.add_argument("--limit", type=int, metavar="N", help="most good pairs, spread over the photographs")
    parser.add_argument("--no-masks", action="store_true", help="measure as if no edit mask were known")
    parser.add_argument(
        "--false-rejects",
        type=float,
        metavar="SHARE",
        help="share of good pairs that may be rejected (0.02; with --labels 0.1)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the whole report")
    parser.add_argument("--markdown", action="store_true", help="print the defects alone, as a Markdown table")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a person's JSON lines or CSV: key, id or uri, and verdict or label (RUN/labels.csv, if it exists)",
    )
    parser.add_argument("--group", metavar="COLUMN", help="the labels' column whose values are held out in turn")
    parser.add_argument("--verdict", metavar="COLUMN", help="the labels' column with the verdict")
    parser.add_argument("--bounds", metavar="FILE", help="write the bounds learned from the labels, for a recipe")
    parser.add_argument("--flips", action="store_true", help="compare two runs or reports")


def run(args: argparse.Namespace) -> int:
    if args.labels and args.flips:
        raise ValueError("use either --labels or --flips, not both")
    if args.false_rejects is not None and not 0 < args.false_rejects < 1:
        raise ValueError(f"--false-rejects {args.false_rejects} must be between 0 and 1")
    own = Path(args.recipe) / LABELS
    if own.is_file() and not (args.labels or args.flips or args.pairs):
        args.labels = str(own)
    report, printed = (_labelled if args.labels else _flips if args.flips else _defects)(args)
    if args.json:
        with journal.replaced(Path(args.json)) as out:
            out.write(json.dumps(report, indent=1, sort_keys=True).encode())
    print(printed)
    return 0


def _flips(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if len(args.overrides) != 1:
        raise ValueError("--flips compares two: crispedit calibrate --flips BEFORE AFTER")
    moved = flips(verdicts(Path(args.recipe)), verdicts(Path(args.overrides[0])))
    rows = [{"before": before, "after": after, "pairs": pairs} for (before, after), pairs in sorted(moved.items())]
    return {"flips": rows}, text.flips_table(moved)


def _defects(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    loaded = recipe.load(args.recipe, args.overrides)
    pairs = measured.shard_pairs(args.pairs) if args.pairs else measured.run_pairs(Run(loaded))
    pairs = measured.spread(pairs, args.limit)
    if not pairs:
        raise ValueError(f"{args.pairs or loaded.run} has no pair to calibrate on")
    rows = measured.measure(loaded.pair_cascade, pairs, masks=not args.no_masks)
    report = known_defects.judge(rows, loaded.pair_cascade, args.false_rejects or 0.02)
    report["near_duplicates"] = measured.near_duplicates(pairs, loaded.select.duplicate_bits)
    return report, text.markdown(report) if args.markdown else text.table(report)


def _labelled(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Agreement with verdicts, and, for a run with scores, bounds learned from the labels."""
    person_labels = labels.read(Path(args.labels), args.group, args.verdict)
    path = Path(args.recipe)
    decided = verdicts(path)
    of = Run(recipe.load(args.recipe, args.overrides)) if path.is_dir() else None
    names = {key: [] for key in decided} if of is None else measured.names(of)
    matched = labels.match(person_labels, names.items())
    report = against_labels(args.labels, person_labels, matched, decided)
    if of is None:
        return report, text.labels_table(report)
    rows = measured.labelled_rows(of, matched, names)
    report |= labelled.judged(rows, of.recipe.pair_cascade, args.false_rejects or 0.1)
    if args.bounds:
        with journal.replaced(Path(args.bounds)) as out:
            out.write(_recipe(report, args.labels).encode())
    printed = text.labels_table(report) + "\n" + text.learned_table(report)
    if any(report["bounds"].values()):
        printed += f"\nTo see what such bounds keep, and to apply them: crispedit view {path}, page Label"
    return report, printed


def _recipe(report: Mapping[str, Any], source: str) -> str:
    """The learned bounds as a fragment of a recipe, with a comment on their origin."""
    held_out = report["held_out"]
    agreement = "" if held_out is None else f"; held out: agreement {held_out['agreement']:.1%}"
    pairs = f"{report['pairs']} pairs of {report['groups']} groups in {Path(source).name}"
    regimes = dict(report["bounds"])
    everywhere = regimes.pop(labelled.UNKNOWN, {})
    sections = {
        "categories": {category: {"jobs": 1, "bounds": moved} for category, moved in everywhere.items()},
        "regimes": regimes,
    }
    body = yaml.safe_dump({name: section for name, section in sections.items() if section}, sort_keys=True)
    return f"# Bounds learned from {pairs}{agreement}.\n{body}"


def verdicts(path: Path) -> dict[str, str]:
    """The verdict of every key, "kept" or a reason, from a run (its selection) or a report of this command."""
    if path.is_dir():
        file = path / "select" / SELECTION
        if not file.exists():
            raise ValueError(f"{path} has no selection; run `crispedit select {path}` first")
        rows = pq.read_table(file, columns=["key", "outcome", "reason"]).to_pylist()
        return {row["key"]: KEPT if row["outcome"] == KEPT else str(row["reason"]) for row in rows}
    try:
        verdict_of = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is neither a run nor a report of calibrate --json: {error}") from None
    return {str(key): str(value) for key, value in verdict_of.items()}


def against_labels(
    file: str, said: Sequence[Label], matched: Mapping[str, Label], decided: Mapping[str, str]
) -> dict[str, Any]:
    """Agreement of a person's labels with verdicts, on the pairs that have both. ValueError if there are none."""
    both = sorted(matched.keys() & decided.keys())
    if not both:
        first = f"; the first is {said[0].names[0]!r}" if said else ""
        raise ValueError(f"{file}: none of its {len(said)} keys has a verdict{first}")
    seen = Agreement.of([matched[key].good for key in both], [decided[key] == KEPT for key in both])
    return {
        "labelled": len(said),
        "compared": len(both),
        "agreement": seen.agreement,
        "kappa": seen.kappa,
        "both_keep": seen.both_yes,
        "only_person_keeps": seen.first_only,
        "only_filters_keep": seen.second_only,
        "both_reject": seen.both_no,
        "disagreements": {key: decided[key] for key in both if matched[key].good != (decided[key] == KEPT)},
    }
