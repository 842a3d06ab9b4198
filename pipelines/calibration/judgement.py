"""Judgement: the quality of decisions: ROC AUC, learned bounds, agreement of two judges (Cohen's kappa), and flips."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from crispedit.bounds import Bound

T = TypeVar("T")
Values = NDArray[np.float64]
Side = Literal["min", "max"]
SIDES: tuple[Side, Side] = ("min", "max")
SIGN: Mapping[Side, int] = {"min": -1, "max": 1}
"""Times a score or bound of that side: larger is worse."""
CAUGHT = 0.9
SEPARABLE_AUC = 0.97
"""A score with a smaller AUC for a defect is not meant to catch it."""


def auc(good: Values, bad: Values, side: Side) -> float | None:
    """Area under the ROC curve: the chance that a bad pair scores worse than a good one, ties counting half. None if
    either is empty. `side` is the bound that the score has: beyond a max, more is worse."""
    if not len(good) or not len(bad):
        return None
    ordered, worse = np.sort(SIGN[side] * good), SIGN[side] * bad
    below, not_above = np.searchsorted(ordered, worse, "left"), np.searchsorted(ordered, worse, "right")
    return float((below + not_above).mean() / 2 / len(good))


def clearness(good: Values, bad: Values, side: Side) -> tuple[float, int, float]:
    """How clearly a score separates two groups, as a sort key: the AUC to three decimals, the number of bad pairs with
    the score, and the distance of the means in standard deviations (d'). Zeros if a group is empty."""
    area = auc(good, bad, side)
    if area is None:
        return 0.0, 0, 0.0
    spread = float(np.sqrt((good.var() + bad.var()) / 2))
    apart = SIGN[side] * float(bad.mean() - good.mean())
    return round(area, 3), len(bad), apart / max(spread, 1e-12)


def bound_at(good: Values, side: Side, false_rejects: float) -> float:
    """The tightest bound that rejects at most this share of the good pairs."""
    return float(SIGN[side] * np.quantile(SIGN[side] * good, 1 - false_rejects, method="higher"))


def learn(
    good: Values, defects: Mapping[str, Values], bound: float, side: Side, false_rejects: float, misses: float = 0.02
) -> float | None:
    """The bound halfway between the good pairs (except the share `false_rejects`) and the nearest defect that it is
    meant for (except the share `misses`). None without such a defect.

    A bound is meant for a defect if it already catches the share `CAUGHT` of it and the score separates it from good
    pairs. Without the first condition, a sharpness bound would be learned from defects that only darken an image.
    """
    sign = SIGN[side]
    worst_good = sign * bound_at(good, side, false_rejects)
    edges = [
        float(np.quantile(sign * bad, misses))
        for bad in defects.values()
        if (sign * bad > sign * bound).mean() >= CAUGHT and (auc(good, bad, side) or 0.0) >= SEPARABLE_AUC
    ]
    if not edges:
        return None
    beyond = [edge for edge in edges if edge > worst_good]
    return sign * ((worst_good + min(beyond)) / 2 if beyond else worst_good)


def limits(bound: Bound) -> dict[Side, float]:
    """The sides of a bound that have a limit."""
    return {side: limit for side in SIDES if (limit := getattr(bound, side)) is not None}


def shared(bounds: Mapping[str, Mapping[str, Bound]]) -> dict[tuple[str, Bound], list[str]]:
    """The categories that share each bound of a score, from the bounds of each category."""
    categories: dict[tuple[str, Bound], list[str]] = defaultdict(list)
    for category, own in bounds.items():
        for score, bound in own.items():
            categories[score, bound].append(category)
    return categories


def grouped(rows: Iterable[T], key: Callable[[T], object]) -> dict[str, list[T]]:
    """The rows of each group, by name."""
    groups: dict[str, list[T]] = defaultdict(list)
    for row in rows:
        groups[str(key(row))].append(row)
    return dict(sorted(groups.items()))


@dataclass(frozen=True)
class Agreement:
    """Counts of two judges' yes or no on the same pairs."""

    both_yes: int
    first_only: int
    second_only: int
    both_no: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Self:
        seen = Counter(zip(first, second, strict=True))
        return cls(seen[True, True], seen[True, False], seen[False, True], seen[False, False])

    @property
    def pairs(self) -> int:
        return self.both_yes + self.first_only + self.second_only + self.both_no

    @property
    def agreement(self) -> float:
        return (self.both_yes + self.both_no) / self.pairs

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (Cohen 1960): agreement beyond chance, at most 1; None if chance alone gives full agreement."""
        n = self.pairs
        first, second = self.both_yes + self.first_only, self.both_yes + self.second_only
        chance = (first * second + (n - first) * (n - second)) / n**2
        return None if chance == 1 else (self.agreement - chance) / (1 - chance)


def flips(before: Mapping[str, str], after: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Counts of keys by (verdict before, verdict after); a missing key is "absent"."""
    return Counter((before.get(key, "absent"), after.get(key, "absent")) for key in before.keys() | after.keys())


def failing(row: Mapping[str, Any], bounds: Mapping[str, Bound]) -> list[str]:
    """Every "filter.score:side" that rejects the row, and "filter:error" for a filter that failed on it."""
    reasons = [f"{name.removesuffix('.error')}:error" for name in row if name.endswith(".error") and row[name]]
    sides = ((score, bound.verdict(row.get(score))) for score, bound in bounds.items())
    return reasons + [f"{score}:{side}" for score, side in sides if side]


def wilson(hits: float, of: float, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which is valid for small numbers; (0, 1) without observations."""
    if not of:
        return 0.0, 1.0
    share = hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5 / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)
