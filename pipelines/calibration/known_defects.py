"""Known defects: how well a recipe's filters separate good pairs from known defects, with the recipe's bounds and with
bounds learned on the other half of the photographs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.outcome import KEPT
from crispedit.pipelines.calibration import defects
from crispedit.pipelines.calibration.judgement import SIDES, Side, Values, auc, bound_at, clearness, failing, learn
from crispedit.pipelines.calibration.measured import GOOD
from crispedit.record import content_key


def judge(rows: Sequence[Mapping[str, Any]], cascade: Cascade, false_rejects: float) -> dict[str, Any]:
    """The report on measured rows: per defect, category and score, with the recipe's and with learned bounds; and the
    verdict of each row. JSON-ready."""
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
                category: _rejection(rows, [i for i in chosen if rows[i]["category"] == category], verdict, held_out)
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
    """0 or 1 for each photograph, equally often, by key and not by order."""
    ordered = sorted(set(photographs), key=lambda name: content_key("half", name))
    return {name: index % 2 for index, name in enumerate(ordered)}


def learn_bounds(
    rows: Sequence[Mapping[str, Any]], cascade: Cascade, false_rejects: float
) -> dict[str, dict[str, Bound]]:
    """The recipe's bounds for each category, with every side that these rows teach replaced.

    Categories that share a bound learn it together; a side without a bound stays so. Each defect teaches only the score
    that separates it best: banding, for example, also reacts to JPEG blocks, but a bound that caught them too would
    reject good pairs. The allowed share of false rejects is divided among the sides.
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
                learned = learn(good, taught, limit, side, share)
                sides[side] = limit if learned is None else learned
        for category in members:
            bounds[category][score] = Bound(**sides)
    return bounds


def _lessons(
    rows: Sequence[Mapping[str, Any]], groups: Mapping[tuple[str, Bound], list[str]]
) -> dict[str, tuple[str, Side] | None]:
    """For each structural defect, the bounded score and side that separate it best from good pairs."""
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
    """A score's known values for good rows and for each structural defect."""
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


def _score_report(rows: Sequence[Mapping[str, Any]], cascade: Cascade, false_rejects: float) -> list[dict[str, Any]]:
    """For every bounded score and the categories that share the bound: false rejects, the bound with the allowed share
    of them, and the AUC and share of unknowns for each defect."""
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
                            "detected": sum(outside.verdict(float(v)) is not None for v in values) / total[name],
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
    """For each semantic defect and each score of a filter without bounds: the AUC, also by category, and the shares of
    defects and good pairs beyond the bound with the allowed false rejects on the other half of the photographs. A
    score's bad side is the one with most defects."""
    bounded = {score.partition(".")[0] for category in cascade.bounds for score in cascade.bounds_of(category)}
    report = []
    for name, filter_ in cascade.filters.items():
        for score in [] if name in bounded else filter_.scores:
            known = [row for row in rows if row.get(f"{name}.{score}") is not None]
            for defect in defects.SEMANTIC:
                entry = _tell_apart(known, f"{name}.{score}", defect, half, false_rejects)
                if entry is not None:
                    report.append({"score": f"{name}.{score}", "defect": defect, **entry})
    return report


def _tell_apart(
    known: Sequence[Mapping[str, Any]], score: str, defect: str, half: Mapping[str, int], false_rejects: float
) -> dict[str, Any] | None:
    """One entry of the semantic report; None if the score never varies, or is unknown for a group or half."""

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
