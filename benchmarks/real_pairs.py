"""Do the filters tell good pairs from bad ones that real editing models made? A person's verdicts, and known defects.

    python -m benchmarks.real_pairs --pairs FOLDER [--recipe embedded] [--json FILE] [--no-defects]

FOLDER holds `pairs.jsonl`: a line a pair with `id`, `source` and `edited` (file names), `category`, `verdict` (`good`,
or what is wrong), `repo` (the model), and `notes`. Printed are: the share of good pairs that is rejected, of bad ones
that is found, and the agreement with the person; under the bounds that ship, and with one model held out at a time,
under bounds that were set on the other models' pairs. Then the defects of `crispedit.pipelines.calibration.defects`,
made from the good local pairs. Sizes are not bounded here: most of these pairs are small.

The bounds that ship were set with the 113 pairs of nine models in view, and holding a model out only loosens them: on
those pairs neither column is a test, and pairs of other models are.

What the notes call compound is left out of false rejects, what was cropped from a figure is left out of `alignment`.
A bound is set on the other models' pairs like this: where it rejects more than the share `FALSE_REJECTS` of their good
pairs, it moves to the quantile that does not; else it stays.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np

from crispedit import images
from crispedit.bounds import Bound
from crispedit.change import estimate
from crispedit.normalise import normalise
from crispedit.pipelines import recipe
from crispedit.pipelines.calibration import defects
from crispedit.pipelines.calibration.judgement import Agreement, auc
from crispedit.record import Sample, seed_of

FALSE_REJECTS = 0.02
WHOLE = ("style", "background")
"""Categories whose edits leave little alone: defects of the whole image cannot be told from them."""
LEFT_OUT = ("resolution", "duplicate")
JPEG_QUALITY = 98
"""For what is not stored as JPEG."""


def read(folder):
    """The rows of pairs.jsonl."""
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def jpeg(path):
    """The bytes of a JPEG file, or of another kind of image as a JPEG."""
    data = path.read_bytes()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return data
    decoded = normalise(data, max_pixels=200_000_000, max_short_side_px=None).image
    return images.encode_jpeg(decoded, JPEG_QUALITY)


def sample_of(row, folder):
    return Sample(
        key=row["id"],
        source_jpeg=jpeg(folder / row["source"]),
        edited_jpeg=jpeg(folder / row["edited"]),
        category=row["category"],
        instruction=row["instruction"],
    )


def measured(cascade, sample):
    """Every score of a pair. A filter that fails on one of these pairs stops the benchmark."""
    row = {"category": sample.category}
    cascade.measure([sample], [row], everything=True)
    errors = {name: text for name, text in row.items() if name.endswith(".error") and text}
    if errors:
        raise ValueError(f"{sample.key}: {errors}")
    return row


def reasons(scores, bounds, left_out=()):
    """What rejects a row: "filter.score:side"."""
    sides = {name: bound.verdict(scores.get(name)) for name, bound in bounds.items()}
    return [
        f"{name}:{side}" for name, side in sides.items() if side and name.partition(".")[0] not in left_out
    ]


def left_out(row):
    """The filters that say nothing of this pair."""
    return ("alignment",) if "crop" in row["notes"] or "figure" in row["notes"] else ()


def bounds_on(rows, scores, cascade):
    """For each category, the bounds that these rows' good pairs leave of the recipe's."""
    found = {}
    categories = {row["category"] for row in rows} | set(cascade.bounds)
    for category in categories:
        found[category] = dict(cascade.bounds_of(category))
    groups = defaultdict(list)
    for category, own in found.items():
        for name, bound in own.items():
            groups[name, bound].append(category)
    for (name, bound), members in groups.items():
        known = [
            scores[row["id"]][name]
            for row in rows
            if row["verdict"] == "good"
            and row["category"] in members
            and scores[row["id"]].get(name) is not None
            and name.partition(".")[0] not in left_out(row)
        ]
        if len(known) < 10:
            continue
        low, high = np.quantile(known, [FALSE_REJECTS, 1 - FALSE_REJECTS], method="closest_observation")
        moved = Bound(
            min=None if bound.min is None else min(bound.min, float(low)),
            max=None if bound.max is None else max(bound.max, float(high)),
        )
        for category in members:
            found[category][name] = moved
    return found


def summary(rows, scores, why):
    """The figures of one set of verdicts; `why` holds the reasons against each pair."""

    def share(chosen):
        return sum(bool(why[row["id"]]) for row in chosen) / len(chosen) if chosen else None

    def regime(row):
        return scores[row["id"]]["regeneration.regime"]

    judged = [row for row in rows if "compound" not in row["notes"]]
    good = [row for row in judged if row["verdict"] == "good"]
    local = [row for row in good if row["category"] not in WHOLE]
    bad = defaultdict(list)
    for row in judged:
        if row["verdict"] != "good":
            bad[row["verdict"]].append(row)
    seen = Agreement.of([row["verdict"] == "good" for row in judged], [not why[row["id"]] for row in judged])
    return {
        "good_rejected": {
            "all": share(good),
            "regenerated_local": share([row for row in local if regime(row) != "exact"]),
            "exact": share([row for row in good if regime(row) == "exact"]),
        },
        "detected": {verdict: share(chosen) for verdict, chosen in sorted(bad.items())},
        "agreement": seen.agreement,
        "kappa": seen.kappa,
    }


def held_out(rows, scores, cascade):
    """The reasons against each pair, under bounds set on the pairs of all other models."""
    why = {}
    for repo in sorted({row["repo"] for row in rows}):
        bounds = bounds_on([row for row in rows if row["repo"] != repo], scores, cascade)
        for row in rows:
            if row["repo"] == repo:
                why[row["id"]] = reasons(scores[row["id"]], bounds[row["category"]], left_out(row))
    return why


def edit_of(sample):
    """[H, W] where the edit is, estimated."""
    height, width = sample.source.shape[:2]
    small = estimate(sample.changed).view(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST) > 0


def with_defects(rows, folder, cascade):
    """{defect: (rejected, of, by)} of the defects made from good local pairs of one size; harmless changes are made
    from those that pass without them."""
    found = {}
    makers = {**defects.STRUCTURAL, **defects.HARMLESS}
    for row in rows:
        if row["verdict"] != "good" or row["category"] in WHOLE:
            continue
        sample = sample_of(row, folder)
        if sample.source.shape != sample.edited.shape:
            continue
        good = defects.Good(sample.source, sample.edited, edit_of(sample))
        passes = not reasons(measured(cascade, sample), cascade.bounds_of(row["category"]))
        for name, make in makers.items():
            if name in defects.HARMLESS and not passes:
                continue
            made = make(good, np.random.default_rng(seed_of(row["id"], name)))
            if made is None:
                continue
            spoiled = Sample(
                key=row["id"],
                source_jpeg=sample.source_jpeg,
                edited_jpeg=images.encode_jpeg(made[1]),
                category=row["category"],
                instruction=row["instruction"],
            )
            why = reasons(measured(cascade, spoiled), cascade.bounds_of(row["category"]))
            hits, of, by = found.get(name, (0, 0, Counter()))
            by.update({reason.partition(":")[0] for reason in why})
            found[name] = hits + bool(why), of + 1, by
    return found


def by_filter(rows, scores, why):
    """Of each score that has a bound: the share of the good pairs and of the bad ones that it rejects, and its AUC."""
    table = {}
    for name in sorted({reason.partition(":")[0] for found in why.values() for reason in found}):
        known = [row for row in rows if scores[row["id"]].get(name) is not None]
        values = {
            kind: np.array(
                [scores[r["id"]][name] for r in known if (r["verdict"] == "good") == (kind == "good")]
            )
            for kind in ("good", "bad")
        }
        hit = Counter(
            row["verdict"] == "good"
            for row in rows
            if any(reason.startswith(f"{name}:") for reason in why[row["id"]])
        )
        area = auc(values["good"], values["bad"], "max")
        table[name] = (hit[True], hit[False], None if area is None else max(area, 1 - area))
    return table


def classified(folder):
    """The classifier's part of the report, where `benchmarks.classifier` measures it; else nothing."""
    try:
        from benchmarks.classifier import measured as words
    except ImportError:
        return None
    instructions = folder.parent / "instructions"
    return words(folder, instructions if instructions.is_dir() else None)


def percent(value):
    return "    -" if value is None else f"{value:6.1%}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True, help="the folder of pairs.jsonl")
    parser.add_argument("--recipe", default="embedded")
    parser.add_argument("--no-defects", action="store_true", help="leave out the defects, which take minutes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    dropped = [f"filters.{name}=null" for name in LEFT_OUT]
    cascade = recipe.load(
        args.recipe, [f"source.path={args.pairs}", "run=runs/real-pairs", *dropped]
    ).pair_cascade
    for filter_ in cascade.filters.values():
        filter_.load()
    rows = read(args.pairs)
    scores = {row["id"]: measured(cascade, sample_of(row, args.pairs)) for row in rows}
    shipped = {
        row["id"]: reasons(scores[row["id"]], cascade.bounds_of(row["category"]), left_out(row))
        for row in rows
    }
    apart = held_out(rows, scores, cascade)
    report = {**summary(rows, scores, apart), "shipped": summary(rows, scores, shipped)}
    models = len({row["repo"] for row in rows})
    print(f"{len(rows)} pairs of {models} models")
    print(f"{'':<34}{'held out':>10}{'shipped':>10}")
    for part in ("good_rejected", "detected"):
        for name, value in report[part].items():
            label = f"{'good rejected' if part == 'good_rejected' else 'detected'}, {name}"
            print(f"{label:<34}{percent(value):>10}{percent(report['shipped'][part][name]):>10}")
    for name in ("agreement", "kappa"):
        print(f"{name:<34}{report[name]:>10.3f}{report['shipped'][name]:>10.3f}")
    print(f"\n{'score':<34}{'good':>6}{'bad':>6}{'AUC':>8}   (rejected by it, as it ships)")
    for name, (good, bad, area) in by_filter(rows, scores, shipped).items():
        print(f"{name:<34}{good:>6}{bad:>6}{area or 0:>8.3f}")
    print("\ngood, but rejected: ")
    for row in rows:
        if row["verdict"] == "good" and shipped[row["id"]]:
            print(f"  {row['id']:<30}{row['category']:<12}{', '.join(shipped[row['id']])}")
    if not args.no_defects:
        found = with_defects(rows, args.pairs, cascade)
        report["defects"] = {name: hits / of for name, (hits, of, _) in found.items()}
        print(f"\n{'defect of good local pairs':<34}{'pairs':>6}{'rejected':>10}")
        for name, (hits, of, by) in found.items():
            note = "   harmless: must pass" if name in defects.HARMLESS else ""
            print(f"{name:<34}{of:>6}{hits / of:>10.1%}{note}   {', '.join(n for n, _ in by.most_common(3))}")
    report["classifier"] = classified(args.pairs)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")


if __name__ == "__main__":
    main()
