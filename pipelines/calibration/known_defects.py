"""Known defects: how well a recipe's filters separate good pairs from known defects, with the recipe's bounds and with
bounds learned on the other half of the photographs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.outcome import KEPT
from crispedit.pipelines.calibration import defects, judgement
from crispedit.pipelines.calibration.judgement import SIGN, Side, Values, auc, failing, grouped, limits, shared
from crispedit.pipelines.calibration.measured import GOOD
from crispedit.record import content_key

Row = Mapping[str, Any]
KINDS = {"good": (GOOD,), "structural": (*defects.STRUCTURAL,), "semantic": (*defects.SEMANTIC,)}


def judge(rows: Sequence[Row], cascade: Cascade, false_rejects: float) -> dict[str, Any]:
    """The report on measured rows: per defect, category and score, with the recipe's and with learned bounds; and the
    verdict of each row. JSON-ready."""
    half = halves([str(row["photograph"]) for row in rows])
    others = ([row for row in rows if half[row["photograph"]] != test] for test in (0, 1))
    learned = [learn_bounds(own, cascade, false_rejects) for own in others]
    judged: list[Row] = [
        {
            **row,
            "reasons": failing(row, cascade.bounds_of(row["category"])),
            "held_out": failing(row, learned[half[row["photograph"]]][row["category"]]),
        }
        for row in rows
    ]
    by_defect = grouped(judged, lambda row: row["defect"])
    return {
        "photographs": len(half),
        "pairs": len(by_defect.get(GOOD, ())),
        "false_rejects_wanted": false_rejects,
        "defects": [
            _defect_report(name, kind, by_defect[name])
            for kind, names in KINDS.items()
            for name in names
            if name in by_defect
        ],
        "scores": [*_score_report(rows, cascade, false_rejects)],
        "semantic": [*_semantic_report(rows, cascade, half, false_rejects)],
        "verdicts": {f"{row['key']}/{row['defect']}": next(iter(row["reasons"]), KEPT) for row in judged},
    }


def halves(photographs: Sequence[str]) -> dict[str, int]:
    """0 or 1 for each photograph, equally often, by key and not by order."""
    ordered = sorted(set(photographs), key=lambda name: content_key("half", name))
    return {name: index % 2 for index, name in enumerate(ordered)}


def learn_bounds(rows: Sequence[Row], cascade: Cascade, false_rejects: float) -> dict[str, dict[str, Bound]]:
    """The recipe's bounds for each category, with every side that these rows teach replaced.

    Categories that share a bound learn it together; a side without a bound stays so. Each defect teaches only the score
    that separates it best: banding, for example, also reacts to JPEG blocks, but a bound that caught them too would
    reject good pairs. The allowed share of false rejects is divided among the sides.
    """
    categories = sorted({str(row["category"]) for row in rows} | set(cascade.bounds))
    bounds = {category: dict(cascade.bounds_of(category)) for category in categories}
    groups = shared(bounds)
    lessons = _lessons(rows, groups)
    share = false_rejects / max(1, len({score for score, _ in groups}))
    for (score, bound), members in groups.items():
        good, bad = _values(rows, score, members)
        sides: dict[str, float | None] = dict(bound)
        for side, limit in limits(bound).items():
            taught = {name: values for name, values in bad.items() if lessons.get(name) == (score, side)}
            learned = judgement.learn(good, taught, limit, side, share) if len(good) else None
            sides[side] = limit if learned is None else learned
        for category in members:
            bounds[category][score] = Bound(**sides)
    return bounds


def _lessons(rows: Sequence[Row], groups: Mapping[tuple[str, Bound], list[str]]) -> dict[str, tuple[str, Side]]:
    """For each structural defect, the bounded score and side that separate it best from good pairs."""
    bounded: dict[tuple[str, Side], list[str]] = defaultdict(list)
    for (score, bound), members in groups.items():
        for side in limits(bound):
            bounded[score, side] += members
    best: dict[str, tuple[float, int, float]] = defaultdict(lambda: (0.0, 0, 0.0))
    lessons = {}
    for (score, side), members in bounded.items():
        good, bad = _values(rows, score, members)
        for defect, values in bad.items():
            clear = judgement.clearness(good, values, side)
            if clear > best[defect]:
                best[defect], lessons[defect] = clear, (score, side)
    return lessons


def _values(rows: Sequence[Row], score: str, categories: Sequence[str]) -> tuple[Values, dict[str, Values]]:
    """A score's known values in these categories, for good rows and for each structural defect."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["category"] in categories and row.get(score) is not None:
            values[row["defect"]].append(row[score])
    known = {name: np.array(own, np.float64) for name, own in values.items()}
    return known.pop(GOOD, np.zeros(0)), {name: own for name, own in known.items() if name in defects.STRUCTURAL}


def _defect_report(name: str, kind: str, rows: Sequence[Row]) -> dict[str, Any]:
    by_category = grouped(rows, lambda row: row["category"])
    categories = {category: _rejection(own) for category, own in by_category.items()}
    return {"defect": name, "kind": kind, **_rejection(rows), "categories": categories}


def _rejection(rows: Sequence[Row]) -> dict[str, Any]:
    reasons = Counter(reason for row in rows for reason in row["reasons"])
    filters = Counter(name for row in rows for name in dict.fromkeys(r.partition(".")[0] for r in row["reasons"]))
    return {
        "rows": len(rows),
        "rejected": sum(bool(row["reasons"]) for row in rows) / len(rows),
        "rejected_held_out": sum(bool(row["held_out"]) for row in rows) / len(rows),
        "by_filter": {name: count / len(rows) for name, count in filters.most_common()},
        "by_reason": {name: count / len(rows) for name, count in reasons.most_common()},
    }


def _score_report(rows: Sequence[Row], cascade: Cascade, false_rejects: float) -> Iterator[dict[str, Any]]:
    """For every bounded score and the categories that share the bound: false rejects, the bound with the allowed share
    of them, and the AUC and share of unknowns for each defect."""
    categories = sorted({str(row["category"]) for row in rows})
    for (score, bound), members in shared({name: cascade.bounds_of(name) for name in categories}).items():
        good, bad = _values(rows, score, members)
        total = Counter(row["defect"] for row in rows if row["category"] in members)
        for side, limit in limits(bound).items() if len(good) else ():
            rejected = {name: SIGN[side] * values > SIGN[side] * limit for name, values in {GOOD: good, **bad}.items()}
            yield {
                "score": score,
                "side": side,
                "bound": limit,
                "categories": members,
                "false_rejects": float(rejected[GOOD].mean()),
                "bound_for_wanted": judgement.bound_at(good, side, false_rejects),
                "defects": {
                    name: {
                        "auc": auc(good, values, side),
                        "detected": int(rejected[name].sum()) / total[name],
                        "unknown": 1 - len(values) / total[name],
                    }
                    for name, values in bad.items()
                },
            }


def _semantic_report(
    rows: Sequence[Row], cascade: Cascade, half: Mapping[str, int], false_rejects: float
) -> Iterator[dict[str, Any]]:
    """For each semantic defect and each score of a filter without bounds: the AUC, also by category, and the shares of
    defects and good pairs beyond the bound with the allowed false rejects on the other half of the photographs. A
    score's bad side is the one with most defects."""
    bounded = {score.partition(".")[0] for category in cascade.bounds for score in cascade.bounds_of(category)}
    for name, filter_ in cascade.filters.items():
        for score in [] if name in bounded else filter_.scores:
            known = [row for row in rows if row.get(f"{name}.{score}") is not None]
            for defect in defects.SEMANTIC:
                entry = _tell_apart(known, f"{name}.{score}", defect, half, false_rejects)
                if entry is not None:
                    yield {"score": f"{name}.{score}", "defect": defect, **entry}


def _tell_apart(
    known: Sequence[Row], score: str, defect: str, half: Mapping[str, int], false_rejects: float
) -> dict[str, Any] | None:
    """One entry of the semantic report; None if the score never varies, or is unknown for a group or half."""

    def values(rows: Iterable[Row]) -> Values:
        return np.array([row[score] for row in rows], np.float64)

    def beyond(rows: Sequence[Row]) -> float:
        """The share of rows beyond the bound learned on the other half."""
        return sum(SIGN[side] * row[score] > SIGN[side] * bounds[half[row["photograph"]]] for row in rows) / len(rows)

    good, bad = ([row for row in known if row["defect"] == kind] for kind in (GOOD, defect))
    area = auc(values(good), values(bad), "min")
    if area is None or np.ptp(values([*good, *bad])) == 0:
        return None
    side: Side = "min" if area >= 0.5 else "max"
    learning = [values(row for row in good if half[row["photograph"]] != test) for test in (0, 1)]
    if not all(map(len, learning)):
        return None
    bounds = [judgement.bound_at(own, side, false_rejects) for own in learning]
    by_category = [grouped(rows, lambda row: row["category"]) for rows in (good, bad)]
    return {
        "side": side,
        "auc": max(area, 1 - area),
        "bounds": bounds,
        "detected_held_out": beyond(bad),
        "false_rejects_held_out": beyond(good),
        "categories": {
            category: auc(values(by_category[0].get(category, ())), values(by_category[1].get(category, ())), side)
            for category in sorted({str(row["category"]) for row in known})
        },
    }
