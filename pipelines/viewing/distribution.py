"""Distributions of scores: histograms, and two scores of the same pairs."""

from __future__ import annotations

from dataclasses import dataclass

from crispedit.bounds import Bound
from crispedit.outcome import KEPT
from crispedit.pipelines.viewing.queries import PairsAddress, Row, where
from crispedit.pipelines.viewing.snapshot import Snapshot

BINS = 60
SCATTER_POINTS = 1500


@dataclass(frozen=True)
class Distribution:
    """The distribution of a score: kept and other pairs in equal bins from `low` to `high`. The first and last bin
    include everything beyond."""

    score: str
    low: float
    high: float
    kept: list[int]
    other: list[int]
    known: int
    unknown: int


def histogram(
    snapshot: Snapshot, score: str, category: str = "", regime: str = "", *, bins: int = BINS, also: Bound | None = None
) -> Distribution | None:
    """The histogram of a score in a category and regime (or all), wide enough to show the bounds and `also`. None if
    nothing was measured."""
    condition, values = where(snapshot, PairsAddress(category=category, regime=regime))
    row = snapshot.sql(
        f"""SELECT count(p."{score}") AS known, count(*) - known AS unknown, min(p."{score}")::DOUBLE AS least,
            max(p."{score}")::DOUBLE AS most, approx_quantile(p."{score}", [0.005, 0.995]) AS middle
        FROM pair p WHERE {condition}""",
        values,
    )[0]
    if not row["known"]:
        return None
    low, high = extent(snapshot, score, category, row, also)
    step = (high - low) / bins or 1.0
    counts = snapshot.sql(
        f"""SELECT greatest(0, least({bins - 1}, floor((p."{score}" - ?) / ?)))::INTEGER AS bin,
            count(*) FILTER (p.outcome = '{KEPT}') AS kept, count(*) - kept AS other
        FROM pair p WHERE {condition} AND p."{score}" IS NOT NULL GROUP BY bin""",
        [low, step, *values],
    )
    kept, other = [0] * bins, [0] * bins
    for count in counts:
        kept[count["bin"]], other[count["bin"]] = count["kept"], count["other"]
    return Distribution(score, low, high, kept, other, row["known"], row["unknown"])


def extent(snapshot: Snapshot, score: str, category: str, row: Row, also: Bound | None = None) -> tuple[float, float]:
    """The range of a score's chart: its values without outliers, and its bounds."""
    low, high = (float(value) for value in row["middle"])
    span = (high - low) or 1.0
    ends = [max(row["least"], low - span / 4), min(row["most"], high + span / 4)]
    cells = [cell for cell in snapshot.cells if category in (cell[0], "")]
    bounds = [snapshot.bound(score, *cell) for cell in cells]
    for bound in [*bounds, *([] if category else [snapshot.bound(score, None)]), also or Bound()]:
        ends += [side for side in (bound.min, bound.max) if side is not None]
    low, high = min(ends), max(ends)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def scatter(snapshot: Snapshot, x: str, y: str, category: str = "", regime: str = "") -> list[Row]:
    """Points (key, x, y, outcome) of a fixed sample of the pairs with both scores."""
    condition, values = where(snapshot, PairsAddress(category=category, regime=regime))
    return snapshot.sql(
        f"""SELECT p.key, p."{x}"::DOUBLE AS x, p."{y}"::DOUBLE AS y, p.outcome FROM pair p
        WHERE {condition} AND p."{x}" IS NOT NULL AND p."{y}" IS NOT NULL
        ORDER BY hash(p.key) LIMIT {SCATTER_POINTS}""",
        values,
    )
