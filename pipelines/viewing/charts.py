"""Charts: the distribution of a score with its bounds, and two scores of the same pairs. The macros of
`pages/charts.html.jinja` draw them as SVG, for the browser and the report."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crispedit.bounds import Bound
from crispedit.outcome import KEPT
from crispedit.pipelines.viewing.queries import PairsAddress, Row, short, where
from crispedit.pipelines.viewing.snapshot import Snapshot

BINS = 60
SCATTER_POINTS = 1500
LEFT, BOTTOM, TOP = 8, 22, 16
"""Margins of a chart, in pixels; the right one is as wide as the left one."""

NamedBound = tuple[str, float, str]
"""A line of a chart: side ("min" or "max"), value, and where it applies ("all", or categories)."""


@dataclass(frozen=True)
class Axis:
    """A score's range along one side of a chart: the pixels of its ends."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value; values outside the range are drawn at its ends."""
        within = min(max(value, self.low), self.high)
        return self.start + (within - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """About six round numbers in the range."""
        step = (self.high - self.low) / 6
        power = 10 ** math.floor(math.log10(step)) if step > 0 else 1.0
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= step)
        first, last = math.ceil(self.low / step), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


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

    def across(self, width: int) -> Axis:
        return Axis(self.low, self.high, LEFT, width - LEFT)

    def up(self, height: int) -> Axis:
        return Axis(self.low, self.high, height - BOTTOM, TOP)

    def bars(self, width: int, height: int) -> Iterator[tuple[str, float, float, list[tuple[str, float, float]]]]:
        """(title, x, width, [(class, y, height)]) of every bin with pairs, on a square-root scale so that small bins
        are visible."""
        step, bin_width = (width - 2 * LEFT) / len(self.kept), (self.high - self.low) / len(self.kept)
        base = height - BOTTOM
        most = max(kept + other for kept, other in zip(self.kept, self.other, strict=True))
        for index, (kept, other) in enumerate(zip(self.kept, self.other, strict=True)):
            if kept + other:
                start = self.low + index * bin_width
                tall = (base - TOP) * math.sqrt((kept + other) / most)
                below = tall * kept / (kept + other)
                stacked = [("kept", base - below, below), ("other", base - tall, tall - below)]
                title = f"{short(start)} to {short(start + bin_width)}: {kept} kept, {other} not"
                yield title, LEFT + index * step, step - 1, [bar for bar in stacked if bar[2] > 0]


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
    low, high = _extent(snapshot, score, category, row, also)
    step = (high - low) / bins or 1.0
    counts = snapshot.sql(
        f"""SELECT greatest(0, least({bins - 1}, floor((p."{score}" - $start) / $step)))::INTEGER AS bin,
            count(*) FILTER (p.outcome = '{KEPT}') AS kept, count(*) - kept AS other
        FROM pair p WHERE {condition} AND p."{score}" IS NOT NULL GROUP BY bin""",
        values | {"start": low, "step": step},
    )
    kept, other = [0] * bins, [0] * bins
    for count in counts:
        kept[count["bin"]], other[count["bin"]] = count["kept"], count["other"]
    return Distribution(score, low, high, kept, other, row["known"], row["unknown"])


def _extent(snapshot: Snapshot, score: str, category: str, row: Row, also: Bound | None) -> tuple[float, float]:
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


def sample(snapshot: Snapshot, x: str, y: str, category: str = "", regime: str = "") -> list[Row]:
    """Points (key, x, y, outcome) of a fixed sample of the pairs with both scores."""
    condition, values = where(snapshot, PairsAddress(category=category, regime=regime))
    return snapshot.sql(
        f"""SELECT p.key, p."{x}"::DOUBLE AS x, p."{y}"::DOUBLE AS y, p.outcome FROM pair p
        WHERE {condition} AND p."{x}" IS NOT NULL AND p."{y}" IS NOT NULL
        ORDER BY hash(p.key) LIMIT {SCATTER_POINTS}""",
        values,
    )


def lines(bounds: Sequence[tuple[str, Bound]]) -> list[NamedBound]:
    """The lines of named bounds; those of equal value and side are one line."""
    names: dict[tuple[str, float], list[str]] = {}
    for name, bound in bounds:
        for side, value in (("min", bound.min), ("max", bound.max)):
            if value is not None:
                names.setdefault((side, value), []).append(name)
    return [(side, value, ", ".join(of)) for (side, value), of in names.items()]


def bound_names(s: Snapshot, score: str, category: str = "", regime: str = "") -> list[NamedBound]:
    """The lines in a histogram of a score: the bounds of one category (and its regimes), or of all, named by
    category."""
    cells = [cell for cell in s.cells if category in (cell[0], "") and (not regime or cell[1] == regime)]
    if regime and not cells:
        cells = [(name, "") for name in s.categories if category in (name, "")]
    named = lines([(c + (f" ({r})" if r else ""), s.bound(score, c, r)) for c, r in cells])
    everyone = ", ".join(s.categories)
    return [(side, value, "all categories" if names == everyone else names) for side, value, names in named]
