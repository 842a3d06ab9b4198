"""Do the filters tell good pairs of editing models from bad ones? By a person's verdicts and by known defects.

    python -m benchmarks.real_pairs --pairs FOLDER [--recipe embedded] [--json FILE] [--no-defects]

FOLDER holds `pairs.jsonl`: a line for each pair with `id`, `source` and `edited` (file names), `category`, `verdict`
(`good`, or what is wrong), `repo` (the model), and `notes`. Printed are: the share of good pairs that is rejected, of
bad ones that is found, and the agreement with the person; then the defects of
`crispedit.pipelines.calibration.defects`, made from the good local pairs of one size. Sizes are not checked here: most
of these pairs are small.

Every figure is given twice. Held out: each model's pairs, and the defects made from them, are judged by bounds that
`crispedit calibrate` learns from the other models' pairs, at `FALSE_REJECTS`. Shipped: by the shipped bounds. The
measures and the shipped bounds were developed on the 113 pairs of nine models, so neither column is a test on those
pairs; both are on pairs of other models.

Pairs whose notes say "compound" do not count as false rejects; those cropped from a figure do not count in `alignment`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np

from crispedit import images
from crispedit.normalise import normalise
from crispedit.pipelines import recipe
from crispedit.pipelines.calibration import defects, labelled
from crispedit.pipelines.calibration.judgement import SIDES, Agreement, auc, bound_at, failing
from crispedit.pipelines.calibration.measured import edit_of
from crispedit.record import Sample, seed_of

FALSE_REJECTS = 0.05
WHOLE = ("style", "background")
"""Categories whose edits leave little alone: defects of the whole image cannot be told from them."""
LEFT_OUT = ("resolution", "duplicate")
JPEG_QUALITY = 98
"""For what is not stored as JPEG."""
ROC = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the good pairs that a bound may reject."""
JUDGES = (0.74, 0.9, 1.0)
"""How often a judge says what the person says; the first is the best published agreement on preference pairs
(EditReward-Compass, Gemini 3.1 Pro)."""


def re_rendered(good, rng):
    """The edited image after an autoencoder, as most editors' answers are. The finest detail is weaker and partly
    changed, chroma is softer, and tone varies by about a level."""
    height, width = good.edited.shape[:2]
    ycc = cv2.cvtColor(good.edited, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    luma = ycc[..., 0]
    base = cv2.GaussianBlur(luma, (0, 0), 1.0)
    fine = luma - base
    amount = cv2.GaussianBlur(np.abs(fine), (0, 0), 3)
    other = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), 0.7)
    ycc[..., 0] = base + rng.uniform(0.7, 0.9) * fine + rng.uniform(0.2, 0.4) * amount * other / other.std()
    ycc[..., 1:] = cv2.GaussianBlur(ycc[..., 1:], (0, 0), 1.2)
    wander = cv2.resize(rng.normal(0, 1, (4, 4, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    rgb = cv2.cvtColor(np.clip(np.rint(ycc), 0, 255).astype(np.uint8), cv2.COLOR_YCrCb2RGB)
    return np.clip(np.rint(rgb + wander), 0, 255).astype(np.uint8)


HARMLESS = {"re_rendered": re_rendered}
"""Changes that must pass: a naive measure sees a defect, but every good editor makes them."""


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


def sample_of(pair, folder):
    return Sample(
        key=pair["id"],
        source_jpeg=jpeg(folder / pair["source"]),
        edited_jpeg=jpeg(folder / pair["edited"]),
        category=pair["category"],
        instruction=pair["instruction"],
    )


def measured(cascade, sample, pair, defect=None):
    """A row for `labelled`: every score of the sample. A filter that fails on one of these pairs stops the
    benchmark."""
    row = {"category": sample.category}
    cascade.measure([sample], [row], everything=True)
    if errors := {name: text for name, text in row.items() if name.endswith(".error") and text}:
        raise ValueError(f"{sample.key}: {errors}")
    # Cropped from a figure: not exact to a pixel. A shift that is made on purpose is larger.
    if defect not in defects.STRUCTURAL and ("crop" in pair["notes"] or "figure" in pair["notes"]):
        row |= dict.fromkeys((name for name in row if name.startswith("alignment.")), None)
    verdict = pair["verdict"]
    return row | {
        "id": pair["id"],
        "group": pair["repo"],
        "verdict": verdict,
        "good": verdict == "good",
        "defect": defect,
    }


def with_defects(pair, sample, cascade):
    """The rows of the defects made from a good local pair of one size."""
    if pair["verdict"] != "good" or pair["category"] in WHOLE or sample.source.shape != sample.edited.shape:
        return
    good = defects.Good(sample.source, sample.edited, edit_of(sample))
    for name, make in {**defects.STRUCTURAL, **HARMLESS}.items():
        made = make(good, np.random.default_rng(seed_of(pair["id"], name)))
        if made is not None:
            spoiled = Sample(
                key=pair["id"],
                source_jpeg=sample.source_jpeg,
                edited_jpeg=images.encode_jpeg(made),
                category=pair["category"],
                instruction=pair["instruction"],
            )
            yield measured(cascade, spoiled, pair, name)


def reasons_of(rows, cascade):
    """The reasons for which each row is rejected, by the bounds "shipped" and "held_out"."""
    found = {"shipped": [failing(row, cascade.bounds_of(row["category"], labelled.regime(row))) for row in rows]}
    pairs = [row for row in rows if row["defect"] is None]
    learned = {
        group: labelled.learn([row for row in pairs if row["group"] != group], cascade, FALSE_REJECTS)
        for group in {row["group"] for row in rows}
    }
    found["held_out"] = [failing(row, learned[row["group"]].of(row)) for row in rows]
    return found


def summary(rows, reasons):
    """The figures for one set of verdicts."""
    chosen = [i for i, row in enumerate(rows) if row["defect"] is None and not row["compound"]]
    report = labelled.agreement([rows[i] for i in chosen], [reasons[i] for i in chosen])
    passes = {row["id"] for row, why in zip(rows, reasons, strict=True) if row["defect"] is None and not why}
    made = defaultdict(list)
    for row, why in zip(rows, reasons, strict=True):
        # What is harmless must not be why a pair is rejected that passed without it.
        if row["defect"] and (row["defect"] not in HARMLESS or row["id"] in passes):
            made[row["defect"]].append(bool(why))
    return {
        "good_rejected": {
            name: report["good_rejected"][name]["share"] if name in report["good_rejected"] else None
            for name in ("all", "regenerated_local", "exact")
        },
        "detected": {name: share["share"] for name, share in report["detected"].items()},
        "agreement": report["agreement"],
        "kappa": report["kappa"],
        "defects": {name: sum(hits) / len(hits) for name, hits in made.items()},
    }


def with_judge(rows, reasons):
    """{agreement: kappa} expected if a judge, who agrees so often with the person, says of each pair that the filters
    keep whether the edit is the one that was asked for. "visible": if the filters found every bad pair but the wrong
    edits."""
    pairs = [(row, why) for row, why in zip(rows, reasons, strict=True) if row["defect"] is None]
    kappas = {}
    for right in JUDGES:
        seen = Counter()
        for row, why in pairs:
            rejects = right if row["verdict"] == "wrong edit" else 1 - right
            seen[row["good"], True] += 0 if why else 1 - rejects
            seen[row["good"], False] += 1 if why else rejects
        table = Agreement(seen[True, True], seen[True, False], seen[False, True], seen[False, False])
        kappas[str(right)] = table.kappa
    visible = [bool(why) or row["verdict"] not in ("good", "wrong edit") for row, why in pairs]
    kappas["visible"] = Agreement.of([row["good"] for row, _ in pairs], [not bad for bad in visible]).kappa
    return kappas


def curves(rows, cascade):
    """Of each defect and verdict, the bounded score that tells it best from the good local pairs: (score, AUC, the
    share that is found where the score's bound rejects each of the shares `ROC` of the good)."""
    own = [row for row in rows if row["category"] not in WHOLE]
    good = [row for row in own if row["defect"] is None and row["good"]]
    kinds = defaultdict(list)
    for row in own:
        if row["defect"] or not row["good"]:
            kinds[row["defect"] or row["verdict"]].append(row)
    sides = {
        (name, side)
        for bounds in cascade.bounds.values()
        for name, bound in bounds.items()
        for side in SIDES
        if getattr(bound, side) is not None
    }

    def known(rows, name):
        return np.array([row[name] for row in rows if row[name] is not None], float)

    table = {}
    for kind, bad in kinds.items():
        for name, side in sorted(sides):
            usual, values = known(good, name), known(bad, name)
            # An unknown score finds nothing.
            area = (auc(usual, values, side) or 0) * len(values) / len(bad)
            if area > table.get(kind, ("", 0))[1]:
                sign = 1 if side == "max" else -1
                at = [bound_at(usual, side, share) for share in ROC]
                table[kind] = (name, area, [float((sign * values > sign * b).sum() / len(bad)) for b in at])
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
    return "-" if value is None else f"{value:.1%}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="the folder of pairs.jsonl")
    parser.add_argument("--recipe", default="embedded")
    parser.add_argument("--no-defects", action="store_true", help="leave out the defects, which take minutes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    dropped = [f"filters.{name}=null" for name in LEFT_OUT]
    cascade = recipe.load(args.recipe, [f"source.path={args.pairs}", "run=runs/real-pairs", *dropped]).pair_cascade
    for filter_ in cascade.filters.values():
        filter_.load()
    rows = []
    for pair in read(args.pairs):
        sample = sample_of(pair, args.pairs)
        own = [measured(cascade, sample, pair)]
        if not args.no_defects:
            own += with_defects(pair, sample, cascade)
        rows += [row | {"compound": "compound" in pair["notes"]} for row in own]
    reasons = reasons_of(rows, cascade)
    report, shipped = (summary(rows, reasons[name]) for name in ("held_out", "shipped"))
    print(f"{sum(row['defect'] is None for row in rows)} pairs of {len({row['group'] for row in rows})} models")
    print(f"{'':<34}{'held out':>10}{'shipped':>10}")
    for part in ("good_rejected", "detected", "defects"):
        for name in sorted(report[part]):
            note = "   harmless: must pass" if name in HARMLESS else ""
            values = "".join(f"{percent(figures[part][name]):>10}" for figures in (report, shipped))
            print(f"{part.replace('_', ' ') + ', ' + name:<34}{values}{note}")
    for name in ("agreement", "kappa"):
        print(f"{name:<34}{report[name]:>10.3f}{shipped[name]:>10.3f}")
    judged = with_judge(rows, reasons["shipped"])
    print(
        "kappa with a judge beside, by agreement; and if all that is visible were found: ",
        {share: round(kappa, 3) for share, kappa in judged.items()},
    )
    print(f"\n{'best score of':<20}{'':<26}{'AUC':>6}   found at {', '.join(map(percent, ROC))} of good rejected")
    for kind, (name, area, found) in sorted(curves(rows, cascade).items()):
        print(f"{kind:<20}{name:<26}{area:>6.3f}   {', '.join(map(percent, found))}")
    print("\nagainst the person's verdict:")
    for row, why in zip(rows, reasons["shipped"], strict=True):
        if row["defect"] is None and row["good"] == bool(why):
            print(f"  {row['id']:<30}{row['category']:<12}{row['verdict']:<14}{', '.join(why) or 'kept'}")
    report |= {"shipped": shipped, "kappa_with_judge": judged, "classifier": classified(args.pairs)}
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")


if __name__ == "__main__":
    main()
