"""Learns bounds from pairs that a person judged, and measures the filters' agreement with the person.

A row is a dict of score columns with `id`, `category`, `good` (bool), `verdict` (the person's word), `group`, and
`regeneration.regime` where the filter `regeneration` ran. Pairs of one group (one editing model) are not independent,
so each group is judged by bounds learned on the others.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispedit.bounds import Bound
from crispedit.cascade import REGIME, Cascade
from crispedit.outcome import KEPT
from crispedit.pipelines.calibration.judgement import SIGN, Agreement, Side, Values, failing, grouped, shared, wilson
from crispedit.pipelines.calibration.judgement import limits as limits_of

Row = Mapping[str, Any]
Bounds = Mapping[str, Bound]
Flags = NDArray[np.bool_]
UNKNOWN = "unknown"

GROUPS_TO_TIGHTEN, GROUPS_TO_LOOSEN = 3, 2
"""A bound is tightened only for bad pairs from at least this many groups, and loosened only for good pairs from at
least that many (from all, if there are fewer): one editing model says little about the next one."""
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
    that frees most good pairs for each bad one is loosened, if they are from at least `GROUPS_TO_LOOSEN` groups. Then
    bounds are tightened, one at a time, always the one that rejects most bad pairs for each good one, as long as it
    rejects bad pairs of at least `GROUPS_TO_TIGHTEN` groups, more bad than good ones, and all bounds together at most
    that share of the good. Categories that share a bound in the recipe learn it together. A bound without good pairs of
    the regime stays the same.
    """
    categories = sorted({str(row["category"]) for row in rows} | set(cascade.bounds))
    cells: dict[tuple[str, str], Bounds] = {}
    for name, own in grouped(rows, regime).items():
        before = {category: cascade.bounds_of(category, name) for category in categories}
        limits = _learned(own, before, false_rejects)
        bad = np.array([not row["good"] for row in own])
        cells |= {(name, category): _bounds(bounds, category, limits, bad) for category, bounds in before.items()}
    return Learned(cells, cascade.bounds_of)


@dataclass(eq=False)
class _Limit:
    """One side of one bound, for the categories that share it, on a scale where larger is looser."""

    score: str
    side: Side
    categories: Sequence[str]
    recipe: float
    at: float
    worse: Values
    """[N] of the rows: larger is worse; -inf if the limit does not apply to a row."""


def _limits(rows: Sequence[Row], bounds: Mapping[str, Bounds]) -> Iterator[_Limit]:
    for (score, bound), categories in shared(bounds).items():
        own = [row.get(score) if row["category"] in categories else None for row in rows]
        for side, limit in limits_of(bound).items():
            worse = np.array([-np.inf if value is None else SIGN[side] * value for value in own], np.float64)
            yield _Limit(score, side, categories, SIGN[side] * limit, SIGN[side] * limit, worse)


def _learned(rows: Sequence[Row], before: Mapping[str, Bounds], false_rejects: float) -> list[_Limit]:
    """The limits that can be learned from rows of one regime, moved."""
    good = np.array([bool(row["good"]) for row in rows])
    groups = np.array([str(row["group"]) for row in rows])
    allowed = int(np.floor(false_rejects * good.sum()))
    limits = [limit for limit in _limits(rows, before) if (good & (limit.worse > -np.inf)).sum() >= LEAST_GOOD]
    rejected = _loosen(limits, good, groups, allowed)
    while best := max(_tighter(limits, rejected, good, groups, allowed), key=itemgetter(0), default=None):
        _, limit, at = best
        limit.at = at
        rejected |= limit.worse > at
    return limits


Step = tuple[tuple[float, int], _Limit, float]
"""How good a step is, the limit and its new value."""


def _tighter(limits: Sequence[_Limit], rejected: Flags, good: Flags, groups: Any, allowed: int) -> Iterator[Step]:
    """Every limit at each good row below its present value, if that is worth it."""
    for limit in limits:
        tried = limit.worse[good & (limit.worse > -np.inf) & (limit.worse < limit.at)]
        for at in sorted(set(tried.tolist()), reverse=True):
            more = (limit.worse > at) & ~rejected
            caught, lost = int((more & ~good).sum()), int((more & good).sum())
            enough = len(set(groups[more & ~good])) >= GROUPS_TO_TIGHTEN
            if enough and lost < caught and (rejected & good).sum() + lost <= allowed:
                yield (caught / (lost + 0.5), caught), limit, at


def _loosen(limits: Sequence[_Limit], good: Flags, groups: Any, allowed: int) -> Flags:
    """Loosen the limits until at most this many good rows are rejected, or the rejected ones are from too few groups;
    returns which rows are rejected, [N]."""
    while True:
        failed = np.sum([np.zeros(len(good), bool), *(limit.worse > limit.at for limit in limits)], axis=0, dtype=int)
        steps = _looser(limits, failed, good, groups) if (failed[good] > 0).sum() > allowed else iter(())
        best = max(steps, key=itemgetter(0), default=None)
        if best is None:
            return np.asarray(failed > 0)
        _, limit, at = best
        limit.at = at


def _looser(limits: Sequence[_Limit], failed: NDArray[np.int64], good: Flags, groups: Any) -> Iterator[Step]:
    """Every limit at each good row that it rejects, if rows of enough groups then pass it. `failed`: [N] by how many
    limits."""
    least = min(GROUPS_TO_LOOSEN, len(set(groups[good])))
    for limit in limits:
        for at in sorted(set(limit.worse[good & (limit.worse > limit.at)].tolist())):
            eased = (limit.worse > limit.at) & (limit.worse <= at)
            if len(set(groups[eased & good])) >= least:
                freed = eased & (failed == 1)  # nothing else rejects them
                gain = int((freed & good).sum()) / (int((freed & ~good).sum()) + 0.5)
                yield (gain, int((eased & good).sum())), limit, at


def _bounds(recipe: Bounds, category: str, limits: Sequence[_Limit], bad: Flags) -> Bounds:
    """The recipe's bounds with the learned sides, halfway between the last good value and the next bad one."""
    bounds = dict(recipe)
    for limit in limits:
        if category in limit.categories and limit.at != limit.recipe:
            beyond = limit.worse[bad & (limit.worse > limit.at)]
            place = (limit.at + float(beyond.min())) / 2 if len(beyond) else limit.at
            sides = bounds[limit.score].model_dump() | {limit.side: SIGN[limit.side] * place}
            if None in sides.values() or sides["min"] <= sides["max"]:
                bounds[limit.score] = Bound(**sides)
    return bounds


def judged(rows: Sequence[Row], cascade: Cascade, false_rejects: float) -> dict[str, Any]:
    """The report, JSON-ready: agreement with the person with the recipe's bounds and with bounds learned on the other
    groups; and the bounds learned on all rows."""
    groups = sorted({str(row["group"]) for row in rows})
    others = {
        group: learn([row for row in rows if str(row["group"]) != group], cascade, false_rejects)
        for group in (groups if len(groups) > 1 else ())
    }
    recipe = [failing(row, cascade.bounds_of(str(row["category"]), regime(row))) for row in rows]
    held_out = [failing(row, others[str(row["group"])].of(row)) for row in rows] if others else None
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
    pairs = list(zip(rows, reasons, strict=True))
    good, bad = ([pair for pair in pairs if bool(pair[0]["good"]) == kind] for kind in (True, False))
    seen = Agreement.of([bool(row["good"]) for row in rows], [not why for why in reasons])

    def rejected(pairs: Sequence[tuple[Row, Sequence[str]]]) -> dict[str, Any]:
        return share_of(sum(bool(why) for _, why in pairs), len(pairs))

    local = [
        (row, why) for row, why in good if regime(row) != "exact" and row["category"] not in ("style", "background")
    ]
    parts = {"all": good, "regenerated_local": local, **grouped(good, lambda pair: regime(pair[0]))}
    return {
        "agreement": seen.agreement,
        "kappa": seen.kappa,
        "good_rejected": {name: rejected(part) for name, part in sorted(parts.items()) if part},
        "detected": {word: rejected(part) for word, part in grouped(bad, lambda pair: pair[0]["verdict"]).items()},
        "groups": {
            group: {
                "good_rejected": rejected([pair for pair in part if pair[0]["good"]]),
                "detected": rejected([pair for pair in part if not pair[0]["good"]]),
            }
            for group, part in grouped(pairs, lambda pair: pair[0]["group"]).items()
        },
        "good_rejected_by": dict(Counter(reason for _, why in good for reason in why).most_common()),
        "disagreements": {
            str(row["id"]): (why[0] if why else KEPT) for row, why in pairs if bool(row["good"]) == bool(why)
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
    present = {(regime(row), row["category"]) for row in rows}
    for name, category in sorted(present & learned.cells.keys()):
        before = cascade.bounds_of(category, name)
        moved = {
            score: {side: _outwards(side, value) for side, value in bound.model_dump().items() if value is not None}
            for score, bound in learned.cells[name, category].items()
            if bound != before[score]
        }
        if moved:
            sections.setdefault(name, {})[category] = moved
    return sections
