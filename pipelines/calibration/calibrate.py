"""crispedit calibrate: how well the filters of a recipe tell good pairs from pairs with known defects.

    crispedit calibrate quality source.path=photos run=runs/calibration     measure and report
    crispedit calibrate --labels labels.csv runs/mine                       verdicts against a person's
    crispedit calibrate --flips before.json after.json                      which verdicts two versions differ on

The good pairs are a run's candidates before any bound is applied to them (the run is carried through edit first, where
it is not yet), or those of a shard set (`--pairs`). Each defect of `defects.py` is applied to each of them.
Bounds are learned on one half of the photographs and tested on the other, and the other way round. Semantic defects,
which no pixel shows, are reported by the scores that have no bound yet (`clip`, `instruction`): how well each tells
them from good pairs, and what a bound on it would find and cost.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from crispedit import images
from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.change import estimate
from crispedit.filters.duplicate import phash
from crispedit.outcome import KEPT
from crispedit.pipelines import build, recipe, tables
from crispedit.pipelines.calibration import defects
from crispedit.pipelines.calibration.defects import Good
from crispedit.pipelines.calibration.judgement import (
    Agreement,
    Side,
    Values,
    auc,
    bound_at,
    clearness,
    flips,
    learn,
)
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.record import Sample, content_key, seed_of
from crispedit.shards import journal
from crispedit.shards.read import ShardReader

GOOD = "good"
SIDES: tuple[Side, Side] = ("min", "max")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", help="a recipe, a shipped recipe's name or a run; or verdicts: a run or a report"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe values, such as run=DIR")
    parser.add_argument("--pairs", metavar="SHARDS", help="take the good pairs from this shard set")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="good pairs at most, spread over the photographs"
    )
    parser.add_argument("--no-masks", action="store_true", help="measure as if no edit mask were known")
    parser.add_argument("--false-rejects", type=float, default=0.02, metavar="SHARE", help="wanted (0.02)")
    parser.add_argument("--json", metavar="FILE", help="write the whole report")
    parser.add_argument(
        "--markdown", action="store_true", help="print the defects alone, as a Markdown table"
    )
    parser.add_argument("--labels", metavar="CSV", help="columns key,label (keep or reject), by a person")
    parser.add_argument("--flips", action="store_true", help="compare two runs or reports")


def run(args: argparse.Namespace) -> int:
    if args.labels and args.flips:
        raise ValueError("--labels and --flips are two questions: ask one at a time")
    if args.labels:
        report = against_labels(Path(args.labels), verdicts(Path(args.recipe)))
        text = labels_table(report)
    elif args.flips:
        if len(args.overrides) != 1:
            raise ValueError("--flips compares two: crispedit calibrate --flips BEFORE AFTER")
        moved = flips(verdicts(Path(args.recipe)), verdicts(Path(args.overrides[0])))
        report = {"flips": [{"before": b, "after": a, "pairs": n} for (b, a), n in sorted(moved.items())]}
        text = flips_table(moved)
    else:
        if not 0 < args.false_rejects < 1:
            raise ValueError(f"--false-rejects {args.false_rejects} must lie between 0 and 1")
        made = recipe.load(args.recipe, args.overrides)
        pairs = shard_pairs(args.pairs) if args.pairs else run_pairs(Run(made))
        pairs = spread(pairs, args.limit)
        if not pairs:
            raise ValueError(f"{args.pairs or made.run} has no pair to calibrate on")
        rows = measure(made.pair_cascade, pairs, masks=not args.no_masks)
        report = judge(rows, made.pair_cascade, args.false_rejects)
        report["near_duplicates"] = near_duplicates(pairs, made.select.duplicate_bits)
        text = markdown(report) if args.markdown else table(report)
    if args.json:
        with journal.replaced(Path(args.json)) as out:
            out.write(json.dumps(report, indent=1, sort_keys=True).encode())
    print(text)
    return 0


@dataclass(frozen=True)
class Pair:
    """A good pair as stored, and which photograph it was made from."""

    photograph: str
    category: str
    stored: Mapping[str, Any]
    """The fields of a `Sample`."""


def run_pairs(of: Run) -> list[Pair]:
    """Every candidate of a run that an editor delivered, in key order. A run without any is carried through edit."""
    if not journal.parts(of.folder("edit")):
        for step in ("curate", "annotate", "edit"):
            build.step(of, step)
    root = of.root
    rows = (
        tables.connect(of)
        .sql("""
        SELECT key, category, source_key, edited, mask, source, composed, instruction, source_caption, target_caption
        FROM candidate WHERE edited IS NOT NULL ORDER BY key""")
        .to_arrow_table()
    )
    return [
        Pair(
            photograph=row["source_key"],
            category=row["category"],
            stored={
                "key": row["key"],
                "source_jpeg": journal.read_blob(root, row["source"]),
                "edited_jpeg": journal.read_blob(root, row["edited"]),
                "mask_png": None if row["mask"] is None else journal.read_blob(root, row["mask"]),
                **{
                    name: row[name]
                    for name in ("category", "instruction", "source_caption", "target_caption")
                },
            },
        )
        for row in rows.to_pylist()
    ]


def shard_pairs(path: str) -> list[Pair]:
    """Every pair of a shard set, in key order. Photographs are told apart by `source_key`; without it, all differ."""
    texts = ("instruction", "source_caption", "target_caption")
    pairs = [
        Pair(
            photograph=str(pair.meta.get("source_key") or pair.key),
            category=pair.category,
            stored={
                "key": pair.key,
                "source_jpeg": pair.source_jpeg,
                "edited_jpeg": pair.edited_jpeg,
                "mask_png": pair.mask_png,
                "category": pair.category,
                **{text: pair.meta.get(text) for text in texts},
            },
        )
        for pair in ShardReader(path, decode=False)
    ]
    return sorted(pairs, key=lambda pair: str(pair.stored["key"]))


def spread(pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
    """At most `limit` pairs, one of each photograph and category before a second of any."""
    turn: Counter[tuple[str, str]] = Counter()
    ranked: list[tuple[int, int, Pair]] = []
    for pair in sorted(pairs, key=lambda pair: content_key("calibrate", str(pair.stored["key"]))):
        ranked.append((turn[pair.photograph, pair.category], len(ranked), pair))
        turn[pair.photograph, pair.category] += 1
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])[:limit]]


def measure(cascade: Cascade, pairs: Sequence[Pair], *, masks: bool = True) -> list[dict[str, Any]]:
    """Every score of every good pair and of every defect made from it; a row also has key, photograph, category and
    defect (`good` for none). A filter's exception ends in its error column, as in a run."""
    for filter_ in cascade.filters.values():
        filter_.load()
    rows = []
    for pair in tqdm(pairs, desc="calibrate", unit="pair", disable=None):
        for defect, sample in _with_defects(pair, pairs):
            if not masks:
                sample = Sample(**{**_stored(sample), "mask_png": None})
            row: dict[str, Any] = {"category": pair.category}
            cascade.measure([sample], [row], everything=True)
            row |= {"key": sample.key, "photograph": pair.photograph, "defect": defect}
            rows.append(row)
    return rows


def _with_defects(pair: Pair, pairs: Sequence[Pair]) -> Iterator[tuple[str, Sample]]:
    sample = Sample(**pair.stored)
    yield GOOD, sample
    if sample.source.shape != sample.edited.shape:
        return  # a pair that is not aligned already is no good one to make defects of
    good = Good(sample.source, sample.edited, edit_of(sample))
    for name, make in defects.STRUCTURAL.items():
        made = make(good, np.random.default_rng(seed_of(sample.key, name)))
        if made is None:
            continue
        source, edited = made
        yield (
            name,
            Sample(
                **{
                    **pair.stored,
                    "source_jpeg": sample.source_jpeg
                    if source is good.source
                    else images.encode_jpeg(source),
                    "edited_jpeg": images.encode_jpeg(edited),
                }
            ),
        )
    for name, mix in defects.SEMANTIC.items():
        other = other_for(name, pair, pairs)
        mixed = mix(pair.stored, None if other is None else other.stored)
        if mixed is not None:
            yield name, Sample(**mixed)


def other_for(defect: str, pair: Pair, pairs: Sequence[Pair]) -> Pair | None:
    """The pair that a semantic defect mixes this one up with: of the same category, or for `wrong_instruction` of
    another; with another target caption, and on the same photograph if one is there, which is the harder case."""
    fit = [
        other
        for other in pairs
        if (other.category != pair.category) == (defect == "wrong_instruction")
        and other.stored["target_caption"] != pair.stored["target_caption"]
    ]
    near = [other for other in fit if other.photograph == pair.photograph] or fit
    return near[seed_of(str(pair.stored["key"]), defect) % len(near)] if near else None


def edit_of(sample: Sample) -> NDArray[np.bool_]:
    """[H, W] where the edit is: the true mask, or the estimated one."""
    if sample.mask is not None:
        return sample.mask
    height, width = sample.source.shape[:2]
    small = estimate(sample.changed)
    rows = np.minimum(np.arange(height) // 4, small.shape[0] - 1)
    columns = np.minimum(np.arange(width) // 4, small.shape[1] - 1)
    return small[rows][:, columns]


def _stored(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in sample.__dataclass_fields__}


def judge(rows: Sequence[Mapping[str, Any]], cascade: Cascade, false_rejects: float) -> dict[str, Any]:
    """The report on measured rows: per defect, per category and per score, under the recipe's bounds and under learned
    ones; and the verdict of each row. JSON-ready."""
    half = halves([str(row["photograph"]) for row in rows])
    learned = [
        learn_bounds([row for row in rows if half[row["photograph"]] != test], cascade, false_rejects)
        for test in (0, 1)
    ]
    recipe_bounds = {category: cascade.bounds_of(category) for category in {row["category"] for row in rows}}
    verdict, held_out = [], []
    for row in rows:
        verdict.append(failing(row, recipe_bounds[row["category"]]))
        held_out.append(failing(row, learned[half[row["photograph"]]][row["category"]]))
    names = [GOOD, *(name for name in defects.STRUCTURAL), *defects.SEMANTIC]
    by_defect = []
    for name in names:
        chosen = [i for i, row in enumerate(rows) if row["defect"] == name]
        if not chosen:
            continue
        entry = _rejection(rows, chosen, verdict, held_out)
        entry |= {
            "defect": name,
            "kind": "good" if name == GOOD else "semantic" if name in defects.SEMANTIC else "structural",
            "categories": {
                category: _rejection(
                    rows, [i for i in chosen if rows[i]["category"] == category], verdict, held_out
                )
                for category in sorted({rows[i]["category"] for i in chosen})
            },
        }
        by_defect.append(entry)
    return {
        "photographs": len(half),
        "pairs": sum(row["defect"] == GOOD for row in rows),
        "false_rejects_wanted": false_rejects,
        "defects": by_defect,
        "scores": _score_report(rows, cascade, false_rejects),
        "semantic": _semantic_report(rows, cascade, half, false_rejects),
        "verdicts": {
            f"{row['key']}/{row['defect']}": (reasons[0] if reasons else KEPT)
            for row, reasons in zip(rows, verdict, strict=True)
        },
    }


def halves(photographs: Sequence[str]) -> dict[str, int]:
    """0 or 1 for each photograph, as many of each, by key and not by order."""
    ordered = sorted(set(photographs), key=lambda name: content_key("half", name))
    return {name: index % 2 for index, name in enumerate(ordered)}


def failing(row: Mapping[str, Any], bounds: Mapping[str, Bound]) -> list[str]:
    """Every "filter.score:side" that rejects the row, or the filter that failed on it as "filter:error"."""
    found = [f"{name.removesuffix('.error')}:error" for name in row if name.endswith(".error") and row[name]]
    sides = ((score, bound.verdict(row.get(score))) for score, bound in bounds.items())
    return found + [f"{score}:{side}" for score, side in sides if side]


def learn_bounds(
    rows: Sequence[Mapping[str, Any]], cascade: Cascade, false_rejects: float
) -> dict[str, dict[str, Bound]]:
    """For each category, the recipe's bounds with every side that can be learned from these rows replaced.

    Categories that share a bound share what is learned; a side without a bound stays so. Each defect teaches the one
    score that tells it best: banding is there for quantised colours, though it sees JPEG blocks as well, and a bound
    drawn to catch these too would cost good pairs for nothing. The wanted share of false rejects is divided among the
    sides.
    """
    categories = sorted({str(row["category"]) for row in rows} | set(cascade.bounds))
    bounds = {category: dict(cascade.bounds_of(category)) for category in categories}
    groups: dict[tuple[str, Bound], list[str]] = defaultdict(list)
    for category, own in bounds.items():
        for score, bound in own.items():
            groups[score, bound].append(category)
    lessons = _lessons(rows, groups)
    share = false_rejects / max(1, len({score for score, _ in groups}))
    for (score, bound), members in groups.items():
        good, bad = _values([row for row in rows if row["category"] in members], score)
        sides: dict[str, float | None] = {"min": bound.min, "max": bound.max}
        for side in SIDES:
            limit = sides[side]
            if limit is not None and len(good):
                taught = {name: seen for name, seen in bad.items() if lessons[name] == (score, side)}
                found = learn(good, taught, limit, side, share)
                sides[side] = limit if found is None else found
        for category in members:
            bounds[category][score] = Bound(**sides)
    return bounds


def _lessons(
    rows: Sequence[Mapping[str, Any]], groups: Mapping[tuple[str, Bound], list[str]]
) -> dict[str, tuple[str, Side] | None]:
    """For each structural defect, the bounded score and side that tell it best from good pairs."""
    best: dict[str, tuple[tuple[float, int, float], tuple[str, Side] | None]] = {
        name: ((0.0, 0, 0.0), None) for name in defects.STRUCTURAL
    }
    for score, side in dict.fromkeys(
        (score, side) for score, bound in groups for side in SIDES if getattr(bound, side) is not None
    ):
        bounded = {
            category
            for (name, bound), members in groups.items()
            if name == score and getattr(bound, side) is not None
            for category in members
        }
        good, bad = _values([row for row in rows if row["category"] in bounded], score)
        for defect, values in bad.items():
            clear = clearness(good, values, side)
            if clear > best[defect][0]:
                best[defect] = clear, (score, side)
    return {defect: taught for defect, (_, taught) in best.items()}


def _values(
    rows: Sequence[Mapping[str, Any]], score: str
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """A score's known values over the good rows, and over those of each structural defect."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get(score) is not None:
            values[row["defect"]].append(row[score])
    good = np.array(values.pop(GOOD, []), np.float64)
    return good, {name: np.array(v, np.float64) for name, v in values.items() if name in defects.STRUCTURAL}


def _rejection(
    rows: Sequence[Mapping[str, Any]],
    chosen: Sequence[int],
    verdict: Sequence[Sequence[str]],
    held_out: Sequence[Sequence[str]],
) -> dict[str, Any]:
    reasons = Counter(reason for i in chosen for reason in verdict[i])
    filters = Counter(f for i in chosen for f in {reason.partition(".")[0] for reason in verdict[i]})
    return {
        "rows": len(chosen),
        "rejected": sum(bool(verdict[i]) for i in chosen) / len(chosen),
        "rejected_held_out": sum(bool(held_out[i]) for i in chosen) / len(chosen),
        "by_filter": {name: count / len(chosen) for name, count in filters.most_common()},
        "by_reason": {name: count / len(chosen) for name, count in reasons.most_common()},
    }


def _score_report(
    rows: Sequence[Mapping[str, Any]], cascade: Cascade, false_rejects: float
) -> list[dict[str, Any]]:
    """For every bounded score and the categories that share the bound: false rejects, the bound that meets the wanted
    share, and the AUC and share of unknowns for each defect."""
    groups: dict[tuple[str, Bound], list[str]] = defaultdict(list)
    for category in sorted({str(row["category"]) for row in rows}):
        for score, bound in cascade.bounds_of(category).items():
            groups[score, bound].append(category)
    report = []
    for (score, bound), members in groups.items():
        own = [row for row in rows if row["category"] in members]
        good, bad = _values(own, score)
        total = Counter(row["defect"] for row in own)
        for side in SIDES:
            limit = getattr(bound, side)
            if limit is None or not len(good):
                continue
            outside = Bound(**{side: limit})
            report.append(
                {
                    "score": score,
                    "side": side,
                    "bound": limit,
                    "categories": members,
                    "false_rejects": float(np.mean([outside.verdict(float(v)) is not None for v in good])),
                    "bound_for_wanted": bound_at(good, side, false_rejects),
                    "defects": {
                        name: {
                            "auc": auc(good, values, side),
                            "detected": sum(outside.verdict(float(v)) is not None for v in values)
                            / total[name],
                            "unknown": 1 - len(values) / total[name],
                        }
                        for name, values in bad.items()
                    },
                }
            )
    return report


def _semantic_report(
    rows: Sequence[Mapping[str, Any]], cascade: Cascade, half: Mapping[str, int], false_rejects: float
) -> list[dict[str, Any]]:
    """For each semantic defect and each score of a filter that decides nothing yet: the AUC, by category too, and the
    shares of defects and good pairs beyond the bound that meets the wanted share on the other half of the photographs.
    A score's bad side is the one on which most defects lie."""
    bounded = {
        score.partition(".")[0] for category in cascade.bounds for score in cascade.bounds_of(category)
    }
    report = []
    for name, filter_ in cascade.filters.items():
        for score in [] if name in bounded else filter_.scores:
            known = [row for row in rows if row.get(f"{name}.{score}") is not None]
            for defect in defects.SEMANTIC:
                found = _tell_apart(known, f"{name}.{score}", defect, half, false_rejects)
                if found is not None:
                    report.append({"score": f"{name}.{score}", "defect": defect, **found})
    return report


def _tell_apart(
    known: Sequence[Mapping[str, Any]], score: str, defect: str, half: Mapping[str, int], false_rejects: float
) -> dict[str, Any] | None:
    """One entry of the semantic report; None where the score never varies or is not known on both sides and halves."""

    def values(kind: str, of: int | None = None, category: str | None = None) -> Values:
        return np.array(
            [
                row[score]
                for row in known
                if row["defect"] == kind
                and of in (None, half[row["photograph"]])
                and category in (None, row["category"])
            ],
            np.float64,
        )

    good, bad = values(GOOD), values(defect)
    area = auc(good, bad, "min")
    if area is None or np.ptp(np.concatenate([good, bad])) == 0:
        return None
    side: Side = "min" if area >= 0.5 else "max"
    sign = 1 if side == "max" else -1
    caught, wronged = 0, 0
    bounds: list[float] = []
    for test in (0, 1):
        learning = values(GOOD, of=1 - test)
        if not len(learning):
            return None
        bounds.append(bound_at(learning, side, false_rejects))
        caught += int((sign * values(defect, of=test) > sign * bounds[-1]).sum())
        wronged += int((sign * values(GOOD, of=test) > sign * bounds[-1]).sum())
    return {
        "side": side,
        "auc": max(area, 1 - area),
        "bounds": bounds,
        "detected_held_out": caught / len(bad),
        "false_rejects_held_out": wronged / len(good),
        "categories": {
            category: auc(values(GOOD, category=category), values(defect, category=category), side)
            for category in sorted({str(row["category"]) for row in known})
        },
    }


def near_duplicates(pairs: Sequence[Pair], bits: int) -> dict[str, Any]:
    """Copies that differ by a re-encoding and 2 % of size, against pairs of other photographs: which shares `select`
    would call repeats, at this many bits, if their instructions were equal."""
    hashes, copies = [], []
    for pair in pairs:
        sample = Sample(**pair.stored)
        copied = [defects.near_copy(image) for image in (sample.source, sample.edited)]
        hashes.append([phash(sample.source_gray), phash(sample.edited_gray)])
        copies.append([phash(images.gray(image)) for image in copied])

    def alike(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
        return all(
            x is not None and y is not None and ((x ^ y) & (2**64 - 1)).bit_count() <= bits
            for x, y in zip(a, b, strict=True)
        )

    strangers = [
        alike(hashes[i], hashes[j])
        for i in range(len(pairs))
        for j in range(i)
        if pairs[i].photograph != pairs[j].photograph
    ]
    return {
        "bits": bits,
        "detected": float(np.mean([alike(a, b) for a, b in zip(hashes, copies, strict=True)])),
        "false": float(np.mean(strangers)) if strangers else None,
    }


def verdicts(path: Path) -> dict[str, str]:
    """The verdict of every key, "kept" or a reason, from a run (its selection) or a report of this command."""
    if path.is_dir():
        file = path / "select" / SELECTION
        if not file.exists():
            raise ValueError(f"{path} has no selection; run `crispedit select {path}` first")
        rows = pq.read_table(file, columns=["key", "outcome", "reason"]).to_pylist()
        return {row["key"]: KEPT if row["outcome"] == KEPT else str(row["reason"]) for row in rows}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is neither a run nor a report of calibrate --json: {error}") from None
    return {str(key): str(value) for key, value in found.items()}


LABELS = {
    "keep": True,
    "kept": True,
    "good": True,
    "1": True,
    "reject": False,
    "rejected": False,
    "bad": False,
    "0": False,
}


def against_labels(file: Path, found: Mapping[str, str]) -> dict[str, Any]:
    """Agreement of a person's labels with verdicts, on the keys that both know. ValueError names a bad line."""
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if not reader.fieldnames or not {"key", "label"} <= set(reader.fieldnames):
            raise ValueError(f"{file}: the first line must name the columns key,label")
        labels = {}
        for line, row in enumerate(reader, start=2):
            label = (row["label"] or "").strip().lower()
            if label not in LABELS:
                raise ValueError(f"{file}, line {line}: label {label!r} is none of {', '.join(LABELS)}")
            labels[row["key"]] = LABELS[label]
    both = sorted(labels.keys() & found.keys())
    if not both:
        raise ValueError(f"{file}: none of its {len(labels)} keys has a verdict")
    seen = Agreement.of([labels[key] for key in both], [found[key] == KEPT for key in both])
    return {
        "labelled": len(labels),
        "compared": len(both),
        "agreement": seen.agreement,
        "kappa": seen.kappa,
        "both_keep": seen.both_yes,
        "only_person_keeps": seen.first_only,
        "only_filters_keep": seen.second_only,
        "both_reject": seen.both_no,
        "disagreements": {key: found[key] for key in both if labels[key] != (found[key] == KEPT)},
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for a reader: defects, then categories that fall short, then scores."""
    lines = [
        f"{report['pairs']} good pairs of {report['photographs']} photographs; rejected, under the recipe's bounds"
        " and under bounds learned on the other half of the photographs:",
        "",
        f"{'':<18}{'rows':>6}{'recipe':>9}{'learned':>9}  by",
    ]
    for entry in report["defects"]:
        by = ", ".join(f"{name} {share:.0%}" for name, share in list(entry["by_filter"].items())[:4])
        lines.append(
            f"{entry['defect']:<18}{entry['rows']:>6}{entry['rejected']:>9.1%}{entry['rejected_held_out']:>9.1%}  {by}"
        )
    duplicates = report["near_duplicates"]
    false = "unknown" if duplicates["false"] is None else f"{duplicates['false']:.2%}"
    lines += [
        "",
        f"near copies found at {duplicates['bits']} bits: {duplicates['detected']:.1%}; "
        f"strangers taken for copies: {false}",
        "",
        "by category, recipe / learned:",
    ]
    categories = sorted({c for entry in report["defects"] for c in entry["categories"]})
    lines.append(f"{'':<18}" + "".join(f"{category:>14}" for category in categories))
    for entry in report["defects"]:
        cells = [entry["categories"].get(category) for category in categories]
        lines.append(
            f"{entry['defect']:<18}"
            + "".join(
                f"{c['rejected']:>7.0%}/{c['rejected_held_out']:<6.0%}" if c else f"{'-':>14}" for c in cells
            )
        )
    lines += ["", f"{'score':<34}{'bound':>12}{'false':>8}{'for wanted':>12}  best at (AUC)"]
    for score in report["scores"]:
        best = sorted(
            ((name, d["auc"]) for name, d in score["defects"].items() if d["auc"] is not None),
            key=lambda item: -item[1],
        )
        told = ", ".join(f"{name} {value:.3f}" for name, value in best[:3])
        many = "" if len(score["categories"]) > 2 else f" [{', '.join(score['categories'])}]"
        lines.append(
            f"{score['score']:<34}{score['side']:>4} {score['bound']:>7.4g}{score['false_rejects']:>8.1%}"
            f"{score['bound_for_wanted']:>12.4g}  {told}{many}"
        )
    return "\n".join([*lines, *_semantic_table(report)])


def _semantic_table(report: Mapping[str, Any]) -> list[str]:
    wanted = report["false_rejects_wanted"]
    lines = [
        "",
        f"semantic defects by scores without a bound: AUC, then found and (falsely) rejected on the other half at"
        f" {wanted:.0%} wanted; AUC by category:",
        f"{'':<18}{'score':<24}{'AUC':>7}{'found':>8}{'false':>8}  by category",
    ]
    for entry in sorted(report["semantic"], key=lambda entry: (entry["defect"], -entry["auc"])):
        by = ", ".join(f"{name} {area:.2f}" for name, area in entry["categories"].items() if area is not None)
        lines.append(
            f"{entry['defect']:<18}{entry['score'] + ':' + entry['side']:<24}{entry['auc']:>7.3f}"
            f"{entry['detected_held_out']:>8.1%}{entry['false_rejects_held_out']:>8.1%}  {by}"
        )
    return lines if report["semantic"] else []


def markdown(report: Mapping[str, Any]) -> str:
    """The defects as Markdown tables for a README: structural ones by bounds, semantic ones by their best score."""
    lines = [
        f"{report['pairs']} good pairs of {report['photographs']} photographs.",
        "",
        "| defect | pairs | rejected | by bounds learned on the other half | mostly by |",
        "|---|---:|---:|---:|---|",
    ]
    for entry in report["defects"]:
        if entry["kind"] == "semantic":
            continue
        name = "none: false rejects" if entry["defect"] == GOOD else entry["defect"]
        by = ", ".join(f"`{filter_}`" for filter_ in list(entry["by_filter"])[:2])
        rejected, held_out = entry["rejected"], entry["rejected_held_out"]
        lines.append(f"| {name} | {entry['rows']} | {rejected:.1%} | {held_out:.1%} | {by} |")
    found = report["near_duplicates"]["detected"]
    lines.append(f"| near duplicate | {report['pairs']} | {found:.1%} | | `duplicate`, in `select` |")
    best: dict[str, Mapping[str, Any]] = {}
    for entry in sorted(report["semantic"], key=lambda entry: entry["auc"]):
        best[entry["defect"]] = entry
    if best:
        lines += [
            "",
            "| semantic defect | best score | AUC | found | at false rejects |",
            "|---|---|---:|---:|---:|",
        ]
    for name in sorted(best):
        entry = best[name]
        found, false = entry["detected_held_out"], entry["false_rejects_held_out"]
        lines.append(f"| {name} | `{entry['score']}` | {entry['auc']:.3f} | {found:.1%} | {false:.1%} |")
    return "\n".join(lines)


def labels_table(report: Mapping[str, Any]) -> str:
    kappa = "undefined" if report["kappa"] is None else f"{report['kappa']:.3f}"
    return "\n".join(
        [
            f"{report['compared']} of {report['labelled']} labelled pairs have a verdict",
            f"agreement {report['agreement']:.1%}, Cohen's kappa {kappa}",
            f"{'':<16}{'filters keep':>14}{'filters reject':>16}",
            f"{'person keeps':<16}{report['both_keep']:>14}{report['only_person_keeps']:>16}",
            f"{'person rejects':<16}{report['only_filters_keep']:>14}{report['both_reject']:>16}",
        ]
    )


def flips_table(moved: Mapping[tuple[str, str], int]) -> str:
    total = sum(moved.values())
    same = sum(count for (before, after), count in moved.items() if before == after)
    kept = sum(count for (before, after), count in moved.items() if (before == KEPT) != (after == KEPT))
    lines = [f"{total} keys: {same} verdicts equal, {total - same} differ, {kept} between kept and not", ""]
    for (before, after), count in sorted(moved.items(), key=lambda item: (-item[1], item[0])):
        if before != after:
            lines.append(f"{count:>7}  {before} -> {after}")
    return "\n".join(lines)
