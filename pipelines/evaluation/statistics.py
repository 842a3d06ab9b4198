"""Statistics of an evaluation: means with intervals, paired tests, variance by source, and strengths from comparisons.

Cases of one family (turns of a session, edits of one photograph) are dependent, so a mean's variance is computed over
families: the CR2 estimate of Bell and McCaffrey (2002) with their degrees of freedom, which is valid for few families
too. If a protocol weights groups equally, the variances of the groups' means are added, with Satterthwaite's degrees of
freedom. A group of one family has no variance of its own; such groups are treated as a sample of groups, with the
variance among them. With only one family, or equal values, the spread is unknown and there is no interval.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from crispedit.replies import Winner

Array = NDArray[np.float64]

EXACT_FAMILIES = 400
"""Above this many families, their number minus one is used as degrees of freedom; the difference is negligible."""


@dataclass(frozen=True)
class Estimate:
    """A mean, its interval (None if unknown), and the two-sided p-value for 0."""

    mean: float
    low: float | None
    high: float | None
    p: float | None

    def figure(self, n: int) -> dict[str, float | int | None]:
        """The mean of `n` values and its interval, JSON-ready."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": n}


UNKNOWN: Mapping[str, float | int | None] = {"mean": None, "low": None, "high": None, "n": 0}
"""The figure of no values."""


def figure(
    values: Sequence[float], families: Sequence[str], groups: Sequence[str] | None = None, level: float = 0.95
) -> dict[str, float | int | None]:
    """The mean of values and its interval, JSON-ready."""
    return mean(values, families, groups, level).figure(len(values)) if values else dict(UNKNOWN)


def mean(
    values: Sequence[float], families: Sequence[str], groups: Sequence[str] | None = None, level: float = 0.95
) -> Estimate:
    """The mean of C values, or the unweighted mean of their groups' means, with its interval over families."""
    data = np.asarray(values, np.float64)
    labels = np.asarray(groups if groups is not None else [""] * len(data))
    strata = [_stratum(data[labels == name], np.asarray(families)[labels == name]) for name in np.unique(labels)]
    centre = float(np.mean([stratum.mean for stratum in strata]))
    variance, df = _combined(strata)
    if not variance or df is None:
        return Estimate(centre, None, None, None)
    se = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + level) / 2, df)) * se
    p = float(2 * stats.t.sf(abs(centre) / se, df))
    return Estimate(centre, centre - reach, centre + reach, p)


def ratio(
    ours: Sequence[float],
    theirs: Sequence[float],
    families: Sequence[str],
    groups: Sequence[str] | None = None,
    level: float = 0.95,
) -> Estimate | None:
    """The ratio of two means over the same cases, by linearisation; None if undefined."""
    above, below = (mean(values, families, groups, level).mean for values in (ours, theirs))
    if below <= 0:
        return None
    quotient = above / below
    apart = [(a - quotient * b) / below for a, b in zip(ours, theirs, strict=True)]
    around = mean(apart, families, groups, level)
    if around.low is None or around.high is None:
        return Estimate(quotient, None, None, None)
    return Estimate(quotient, quotient + around.low, quotient + around.high, None)


@dataclass(frozen=True)
class _Stratum:
    """A group's mean, and its variance with degrees of freedom; None for one family."""

    mean: float
    variance: float | None
    df: float
    spread: float
    """Mean squared deviation of a family's mean from the group's; 0 for one family."""


def _stratum(values: Array, families: NDArray[np.str_]) -> _Stratum:
    _, place = np.unique(families, return_inverse=True)
    sizes = np.bincount(place).astype(np.float64)
    count = len(sizes)
    centre = float(values.mean())
    if count < 2:
        return _Stratum(centre, None, 0.0, 0.0)
    share = sizes / sizes.sum()
    apart = np.bincount(place, values) / sizes - centre
    weight = share**2 / (1 - share)
    variance = float(weight @ apart**2)
    return _Stratum(centre, variance, _freedom(share, weight, sizes), variance * count)


def _freedom(share: Array, weight: Array, sizes: Array) -> float:
    """Bell and McCaffrey's degrees of freedom, for independent values of equal variance."""
    count = len(share)
    if count > EXACT_FAMILIES or np.ptp(sizes) == 0:
        return count - 1.0
    residuals = np.eye(count) - share
    form = (residuals.T * weight) @ residuals / sizes  # Q Omega, Omega = diag(1 / sizes)
    return float(np.trace(form) ** 2 / np.trace(form @ form))


def _combined(strata: Sequence[_Stratum]) -> tuple[float | None, float | None]:
    """The variance of the strata's unweighted mean, and its degrees of freedom; None if unknown."""
    known = [(s.variance, s.df) for s in strata if s.variance is not None]
    single = [s.mean for s in strata if s.variance is None]
    if len(single) > 1:
        known.append((float(np.var(single, ddof=1)) * len(single), len(single) - 1.0))
    elif single and known:  # one group of one family: it gets the variance of families in the other groups
        known.append((float(np.mean([s.spread for s in strata if s.variance is not None])), known[0][1]))
    if not known:
        return None, None
    variances, freedom = np.array([v for v, _ in known]) / len(strata) ** 2, np.array([df for _, df in known])
    total = float(variances.sum())
    # Satterthwaite's quotient with unbiased squares: a squared variance is too large by a factor of 1 + 2 / df.
    below = float((variances**2 / (freedom + 2)).sum())
    if below == 0:
        return total, float(freedom.sum())
    return total, max(1.0, float((total**2 - 2 * below) / below))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p-values, corrected by Holm's method (1979); None stays None."""
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for place, (value, index) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - place)))
        corrected[index] = highest
    return corrected


def sign(wins: int, losses: int) -> float | None:
    """The two-sided p-value of the sign test; None without decided matches."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None


@dataclass(frozen=True)
class Variances:
    """Variances of one value between cases, seeds of a case, and judgements of an answer; None: not repeated."""

    cases: float | None
    seeds: float | None
    judgements: float | None


def variances(cells: Sequence[tuple[str, int, int, float]]) -> Variances:
    """The sources of variance of (case, seed, judgement, value), nested: cases, seeds within, judgements within."""
    answers: dict[tuple[str, int], list[float]] = {}
    for case, seed, _, value in cells:
        answers.setdefault((case, seed), []).append(value)
    cases: dict[str, list[float]] = {}
    for (case, _), values in answers.items():
        cases.setdefault(case, []).append(float(np.mean(values)))
    repeats, seeds = (_mean_count(list(some.values())) for some in (answers, cases))
    judging, seeding = (_within(list(some.values())) for some in (answers, cases))
    if seeding is not None:
        seeding = max(0.0, seeding - (judging or 0.0) / repeats)
    between = None
    if len(cases) > 1:
        middle = [float(np.mean(values)) for values in cases.values()]
        noise = (seeding or 0.0) / seeds + (judging or 0.0) / (seeds * repeats)
        between = max(0.0, float(np.var(middle, ddof=1)) - noise)
    return Variances(between, seeding, judging)


def _mean_count(lists: Sequence[Sequence[float]]) -> float:
    """The harmonic mean of the lists' lengths, the divisor of a variance."""
    return len(lists) / sum(1 / len(values) for values in lists) if lists else 1.0


def _within(lists: Sequence[Sequence[float]]) -> float | None:
    """The variance within lists, pooled; None if none has two values."""
    freedom = sum(len(values) - 1 for values in lists)
    if freedom == 0:
        return None
    return float(sum(np.var(values) * len(values) for values in lists) / freedom)


# Pairwise comparisons

ELO_PER_STRENGTH = 400 / np.log(10)
ELO_MIDDLE = 1000.0
SHRINKING = 1.0
"""GEditBench v2's penalty: half of this times the squared strengths."""
TIE_BOUNDS = (-12.0, 8.0)
PRECISE = {"ftol": 1e-15, "gtol": 1e-8}


@dataclass(frozen=True)
class PairwiseResult:
    """One comparison of two players about one case, in one dimension."""

    case: str
    dimension: str
    first: str
    second: str
    outcome: Winner


@dataclass(frozen=True)
class Strength:
    """A player's rating on Elo's scale (mean 1000), with its interval and number of matches."""

    elo: float
    low: float | None
    high: float | None
    matches: int


def strengths(
    matches: Sequence[PairwiseResult], level: float = 0.95, draws: int = 200, seed: int = 0
) -> dict[str, Strength]:
    """Ratings by player, of Davidson's (1970) extension of the Bradley-Terry model to ties, as GEditBench v2 fits it:
    one strength for all dimensions, a tie parameter for each, equal weights of dimensions.

    Intervals come from a bootstrap over cases: t, with the standard deviation of the draws.
    """
    players = sorted({name for match in matches for name in (match.first, match.second)})
    if len(players) < 2:
        return {name: Strength(ELO_MIDDLE, None, None, 0) for name in players}
    table = _Table(matches, players)
    centre = table.fit(np.ones(len(table.cases)))
    drawn = np.zeros((0, len(players)))
    if len(table.cases) > 1:
        rng = np.random.Generator(np.random.PCG64(seed))
        share = np.full(len(table.cases), 1 / len(table.cases))
        weights = rng.multinomial(len(table.cases), share, size=draws).astype(np.float64)
        drawn = np.stack([table.fit(weight, centre) for weight in weights])[:, : len(players)]
    ratings = ELO_MIDDLE + ELO_PER_STRENGTH * centre[: len(players)]
    counts = Counter(name for match in matches for name in (match.first, match.second))
    cases = len(table.cases)
    strengths = {}
    for place, (name, rating) in enumerate(zip(players, ratings.tolist(), strict=True)):
        low = high = None
        if len(drawn):
            spread = float(drawn[:, place].std(ddof=1)) * float(np.sqrt(cases / (cases - 1)))
            reach = ELO_PER_STRENGTH * spread * float(stats.t.ppf((1 + level) / 2, cases - 1))
            low, high = rating - reach, rating + reach
        strengths[name] = Strength(rating, low, high, counts[name])
    return strengths


class _Table:
    """Matches as arrays: (first, second, outcome, dimension) with a count for each case."""

    def __init__(self, matches: Sequence[PairwiseResult], players: Sequence[str]) -> None:
        self.players = len(players)
        self.cases = sorted({match.case for match in matches})
        dimensions = sorted({match.dimension for match in matches})
        shown = [(match.first, match.second) for match in matches]
        self.dimensions = len(dimensions)
        self.first, self.second = (np.searchsorted(players, names) for names in zip(*shown, strict=True))
        self.outcome = np.array([("first", "second", "tie").index(match.outcome) for match in matches])
        self.dimension = np.searchsorted(dimensions, [match.dimension for match in matches])
        self.case = np.searchsorted(self.cases, [match.case for match in matches])

    def fit(self, weights: Array, start: Array | None = None) -> Array:
        """[players + dimensions]: strengths with mean 0 and logarithms of tie parameters, with these weights of
        cases."""
        weight = weights[self.case]
        played = np.bincount(self.dimension, weight, self.dimensions)
        share = np.divide(played[played > 0].mean(), played, out=np.zeros_like(played), where=played > 0)
        weight = weight * share[self.dimension]

        def loss(free: Array) -> tuple[float, Array]:
            strength, ties = free[: self.players], free[self.players :]
            a, b = strength[self.first], strength[self.second]
            logits = np.stack([a, b, np.log(2) + ties[self.dimension] + (a + b) / 2], axis=1)
            highest = logits.max(axis=1, keepdims=True)
            log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1))
            rows = np.arange(len(logits))
            value = SHRINKING / 2 * strength @ strength + weight @ (log_sum - logits[rows, self.outcome])
            slope = np.exp(logits - log_sum[:, None])
            slope[rows, self.outcome] -= 1
            slope *= weight[:, None]
            gradient = np.concatenate([SHRINKING * strength, np.bincount(self.dimension, slope[:, 2], self.dimensions)])
            np.add.at(gradient, self.first, slope[:, 0] + slope[:, 2] / 2)
            np.add.at(gradient, self.second, slope[:, 1] + slope[:, 2] / 2)
            return float(value), gradient

        bounds = [(None, None)] * self.players + [TIE_BOUNDS] * self.dimensions
        begin = np.zeros(self.players + self.dimensions) if start is None else start
        minimum = optimize.minimize(loss, begin, jac=True, bounds=bounds, method="L-BFGS-B", options=PRECISE)
        answer = np.asarray(minimum.x, np.float64)
        answer[: self.players] -= answer[: self.players].mean()
        return answer
