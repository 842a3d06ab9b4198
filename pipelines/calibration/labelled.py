"""Learns bounds from pairs that a person judged, and measures the filters' agreement with the person.

A row is a dict of score columns with `id`, `category`, `good` (bool), `verdict` (the person's word), `group`, and
`regeneration.regime` where the filter `regeneration` ran. Pairs of one group (one editing model) are not independent,
so each group is judged by bounds learned on the others.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crispedit.bounds import Bound
from crispedit.cascade import REGIME, Cascade
from crispedit.pipelines.calibration.judgement import SIDES, Agreement, Side, failing, wilson

Row = Mapping[str, Any]
Bounds = Mapping[str, Bound]
UNKNOWN = "unknown"

LEAST_CAUGHT, LEAST_EASED = 3, 2
"""A bound is tightened only for bad pairs from at least LEAST_CAUGHT groups, and loosened only for good pairs from at
least LEAST_EASED (from all, if there are fewer): one editing model says little about the next one."""
LEAST_GOOD = 5
"""A bound is learned if at least this many good pairs have the score."""


@dataclass(frozen=True)
class Learned:
    """Bounds by regime and category."""

    cells: Mapping[tuple[str, str], Bounds]
    other: Callable[[str], Bounds]
    """The bounds of a category in a regime without pairs."""

    def of(self, row: Row) -> Bounds:
        category = str(row["category"])
        return self.cells.get((regime(row), category)) or self.other(category)


def regime(row: Row) -> str:
    """The row's regime: exact, regenerated or global; "unknown" if it was not measured."""
    return str(row.get(REGIME) or UNKNOWN)


def learn(rows: Sequence[Row], cascade: Cascade, false_rejects: float) -> Learned:
    """Bounds for each regime and category, from labelled rows.

    While the recipe's bounds together reject more than the share `false_rejects` of a regime's good pairs, the bound
    that frees most good pairs for each bad one is loosened, if they are from at least `LEAST_EASED` groups. Then bounds
    are tightened, one at a time, always the one that rejects most bad pairs for each good one, as long as it rejects
    bad pairs of at least `LEAST_CAUGHT` groups, more bad than good ones, and all bounds together at most that share of
    the good. Categories that share a bound in the recipe learn it together. A bound without good pairs of the regime
    stays the same.
    """
    cells: dict[tuple[str, str], Bounds] = {}
    for name in sorted({regime(row) for row in rows}):
        own = [row for row in rows if regime(row) == name]
        before = {
            category: cascade.bounds_of(category, name)
            for category in sorted({str(row["category"]) for row in rows} | set(cascade.bounds))
        }
        for category, bounds in _learn(own, before, false_rejects).items():
            cells[name, category] = bounds
    return Learned(cells, cascade.bounds_of)


@dataclass(frozen=True)
class _Limit:
    """One side of one bound, for the categories that share it."""

    score: str
    side: Side
    categories: tuple[str, ...]
    now: float
    """The recipe's bound, on the scale of `values`: larger is looser."""

    def values(self, rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[N]: larger is worse; -inf if the limit does not apply to a row."""
        sign = 1 if self.side == "max" else -1
        return np.array(
            [
                sign * row[self.score]
                if row["category"] in self.categories and row.get(self.score) is not None
                else -np.inf
                for row in rows
            ],
            np.float64,
        )


def _learn(rows: Sequence[Row], before: Mapping[str, Bounds], false_rejects: float) -> dict[str, Bounds]:
    limits = _limits(before)
    good = np.array([bool(row["good"]) for row in rows])
    groups = np.array([str(row["group"]) for row in rows])
    allowed = int(np.floor(false_rejects * good.sum()))
    values = {limit: limit.values(rows) for limit in limits}
    chosen = {limit: limit.now for limit, worse in values.items() if (good & (worse > -np.inf)).sum() >= LEAST_GOOD}
    rejected = _loosened(chosen, values, good, groups, allowed)
    while True:
        best: tuple[float, int, _Limit, float] | None = None
        for limit in chosen:
            for at in _steps(values[limit], good, chosen[limit]):
                more = (values[limit] > at) & ~rejected
                caught, lost = int((more & ~good).sum()), int((more & good).sum())
                if (
                    len(set(groups[more & ~good])) < LEAST_CAUGHT
                    or lost >= caught
                    or (rejected & good).sum() + lost > allowed
                ):
                    continue
                if best is None or (caught / (lost + 0.5), caught) > best[:2]:
                    best = (caught / (lost + 0.5), caught, limit, at)
        if best is None:
            break
        _, _, limit, at = best
        chosen[limit] = at
        rejected |= values[limit] > at
    return {category: _bounds(own, category, chosen, values, good) for category, own in before.items()}


def _loosened(
    chosen: dict[_Limit, float],
    values: Mapping[_Limit, np.ndarray[Any, Any]],
    good: np.ndarray[Any, Any],
    groups: np.ndarray[Any, Any],
    allowed: int,
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Loosen the chosen limits until at most this many good rows are rejected, or the rejected ones are from too few
    groups; returns which rows are rejected, [N]."""
    least = min(LEAST_EASED, len(set(groups[good])))

    def failures() -> np.ndarray[Any, np.dtype[np.int64]]:
        each = [np.zeros(len(good), bool), *(values[limit] > at for limit, at in chosen.items())]
        return np.sum(each, axis=0, dtype=np.int64)

    while ((failed := failures()) > 0)[good].sum() > allowed:
        best: tuple[float, int, _Limit, float] | None = None
        for limit, now in chosen.items():
            worse = values[limit]
            for at in sorted({float(value) for value in worse[good & (worse > now)]}):
                eased = (worse > now) & (worse <= at)
                if len(set(groups[eased & good])) < least:
                    continue
                freed = eased & (failed == 1)  # nothing else rejects them
                gain = int((freed & good).sum()) / (int((freed & ~good).sum()) + 0.5)
                nearer = int((eased & good).sum())
                if best is None or (gain, nearer) > best[:2]:
                    best = gain, nearer, limit, at
        if best is None:
            break
        chosen[best[2]] = best[3]
    return failed > 0


def _limits(bounds: Mapping[str, Bounds]) -> list[_Limit]:
    shared: dict[tuple[str, Bound], list[str]] = defaultdict(list)
    for category, own in bounds.items():
        for score, bound in own.items():
            shared[score, bound].append(category)
    return [
        _Limit(score, side, tuple(members), (1 if side == "max" else -1) * float(getattr(bound, side)))
        for (score, bound), members in shared.items()
        for side in SIDES
        if getattr(bound, side) is not None
    ]


def _steps(worse: np.ndarray[Any, Any], good: np.ndarray[Any, Any], now: float) -> list[float]:
    """Tighter values of a limit to try: at each good pair below the present one."""
    return sorted({float(value) for value in worse[good & (worse > -np.inf) & (worse < now)]}, reverse=True)


def _bounds(
    recipe: Bounds,
    category: str,
    chosen: Mapping[_Limit, float],
    values: Mapping[_Limit, np.ndarray[Any, Any]],
    good: np.ndarray[Any, Any],
) -> Bounds:
    """The recipe's bounds with the learned sides, halfway between the last good value and the next bad one."""
    bounds = dict(recipe)
    for limit, at in chosen.items():
        if category not in limit.categories or at == limit.now:
            continue
        beyond = values[limit][~good & (values[limit] > at)]
        place = (at + float(beyond.min())) / 2 if len(beyond) else at
        sides = {side: getattr(bounds[limit.score], side) for side in SIDES}
        sides[limit.side] = place if limit.side == "max" else -place
        if sides["min"] is None or sides["max"] is None or sides["min"] <= sides["max"]:
            bounds[limit.score] = Bound(**sides)
    return bounds


def judged(rows: Sequence[Row], cascade: Cascade, false_rejects: float) -> dict[str, Any]:
    """The report, JSON-ready: agreement with the person with the recipe's bounds and with bounds learned on the other
    groups; and the bounds learned on all rows."""
    groups = sorted({str(row["group"]) for row in rows})
    recipe = [failing(row, cascade.bounds_of(str(row["category"]), regime(row))) for row in rows]
    held_out: list[list[str]] | None = None
    if len(groups) > 1:
        held_out = [[] for _ in rows]
        for group in groups:
            learned = learn([row for row in rows if str(row["group"]) != group], cascade, false_rejects)
            for i, row in enumerate(rows):
                if str(row["group"]) == group:
                    held_out[i] = failing(row, learned.of(row))
    return {
        "pairs": len(rows),
        "groups": len(groups),
        "false_rejects_wanted": false_rejects,
        "recipe": agreement(rows, recipe),
        "held_out": None if held_out is None else agreement(rows, held_out),
        "bounds": fragment(rows, learn(rows, cascade, false_rejects), cascade),
    }


def agreement(rows: Sequence[Row], reasons: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The agreement of verdicts (the reasons against each row; none: kept) with the person's."""
    kept = [not why for why in reasons]
    seen = Agreement.of([bool(row["good"]) for row in rows], kept)

    def share(chosen: Sequence[int], hit: Callable[[int], bool]) -> dict[str, Any]:
        return share_of(sum(hit(i) for i in chosen), len(chosen))

    good = [i for i, row in enumerate(rows) if row["good"]]
    by_regime: dict[str, list[int]] = defaultdict(list)
    for i in good:
        by_regime[regime(rows[i])].append(i)
    local = [i for i in good if regime(rows[i]) != "exact" and rows[i]["category"] not in ("style", "background")]
    parts = {"all": good, **by_regime, "regenerated_local": local}
    return {
        "agreement": seen.agreement,
        "kappa": seen.kappa,
        "good_rejected": {
            name: share(chosen, lambda i: not kept[i]) for name, chosen in sorted(parts.items()) if chosen
        },
        "detected": {
            word: share([i for i, row in enumerate(rows) if row["verdict"] == word], lambda i: not kept[i])
            for word in sorted({str(row["verdict"]) for row in rows if not row["good"]})
        },
        "groups": {
            group: {
                "good_rejected": share([i for i in good if rows[i]["group"] == group], lambda i: not kept[i]),
                "detected": share(
                    [i for i, row in enumerate(rows) if row["group"] == group and not row["good"]],
                    lambda i: not kept[i],
                ),
            }
            for group in sorted({str(row["group"]) for row in rows})
        },
        "good_rejected_by": dict(Counter(why for i in good for why in reasons[i]).most_common()),
        "disagreements": {
            str(row["id"]): (why[0] if why else "kept")
            for row, why in zip(rows, reasons, strict=True)
            if bool(row["good"]) == bool(why)
        },
    }


def share_of(hits: int, of: int) -> dict[str, Any]:
    """A share with its 95 % interval; null without rows."""
    low, high = wilson(hits, of)
    return {"share": hits / of if of else None, "hits": hits, "of": of, "low": low, "high": high}


def _outwards(side: str, value: float) -> float:
    """Round to six digits, outwards, so that a bound at a good pair's score still keeps it."""
    return (math.floor(value * 1e6) if side == "min" else math.ceil(value * 1e6)) / 1e6


def fragment(rows: Sequence[Row], learned: Learned, cascade: Cascade) -> dict[str, Any]:
    """A recipe fragment: the bounds that differ from the recipe's, by regime and category."""
    sections: dict[str, Any] = {}
    for (name, category), bounds in sorted(learned.cells.items()):
        if not any(regime(row) == name and row["category"] == category for row in rows):
            continue
        before = cascade.bounds_of(category, name)
        moved = {
            score: {side: _outwards(side, value) for side, value in bound.model_dump().items() if value is not None}
            for score, bound in bounds.items()
            if bound != before[score]
        }
        if moved:
            sections.setdefault(name, {})[category] = moved
    return sections
