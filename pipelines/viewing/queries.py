"""Queries of the pages over a snapshot: which pairs, in what order, counted by what; what moved bounds would keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.outcome import KEPT, NOT_REACHED
from crispedit.pipelines.verdicts import quoted
from crispedit.pipelines.viewing.snapshot import Snapshot

PAGE = 48
BINS = 60
SCATTER_POINTS = 1500
FACETS = ("outcome", "category", "reason", "editor", "dataset", "wave")
FACET_VALUES = 24
"""Values of a facet that a page lists, the most frequent first."""
UNLABELLED = "none"

Row = dict[str, Any]


@dataclass(frozen=True)
class Moved:
    """A bound that was moved: of a score, in one category or (None) wherever a category has none of its own."""

    score: str
    category: str | None
    bound: Bound

    @staticmethod
    def parse(text: str) -> Moved:
        """From "filter.score@category:min,max", as a page's address has it. ValueError if it is none."""
        place, colon, sides = text.rpartition(":")
        score, _, category = place.partition("@")
        low, comma, high = sides.partition(",")
        if not colon or not comma or not score:
            raise ValueError(f"{text!r} is no moved bound: it is written filter.score@category:min,max")
        values = [float(side) if side else None for side in (low, high)]
        if any(value is not None and not math.isfinite(value) for value in values):
            raise ValueError(f"{text!r}: a bound is a finite number")
        return Moved(score, category or None, Bound(min=values[0], max=values[1]))

    def __str__(self) -> str:
        low, high = ("" if side is None else repr(side) for side in (self.bound.min, self.bound.max))
        return f"{self.score}@{self.category or ''}:{low},{high}"


@dataclass(frozen=True)
class Wanted:
    """What a page is asked to show; its fields are the parameters of the page's address."""

    outcome: str = ""
    category: str = ""
    reason: str = ""
    editor: str = ""
    dataset: str = ""
    wave: str = ""
    label: str = ""
    q: str = ""
    score: str = ""
    low: float | None = None
    high: float | None = None
    """With `score`: only pairs whose score lies in [low, high)."""
    flip: str = ""
    """With a comparison: "gained", "lost" or "reason"."""
    sort: str = ""
    page: int = 1

    @staticmethod
    def of(parameters: Mapping[str, str]) -> Wanted:
        """From the parameters of an address; others are not its business. ValueError for a number that is none."""
        texts = {name: parameters.get(name, "")[:500] for name in Wanted.__dataclass_fields__}
        numbers = {name: float(texts.pop(name)) if texts[name] else None for name in ("low", "high")}
        if not texts["page"].isdecimal():
            texts["page"] = "1"
        return Wanted(**{**texts, **numbers, "page": max(1, int(texts["page"]))})  # type: ignore[arg-type]

    def query(self, **changes: Any) -> str:
        """The address's parameters with some changed; a page number survives only a change of itself."""
        fields = {**self.__dict__, "page": 1, **changes}
        return urlencode(
            {
                name: value
                for name, value in fields.items()
                if value not in ("", None) and (name, value) != ("page", 1)
            }
        )

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """The filters that are on: (parameter, what it says)."""
        names = (*FACETS, "label", "flip")
        on = [(name, getattr(self, name)) for name in names if getattr(self, name)]
        if self.q:
            on.append(("q", f"“{self.q}”"))
        if self.score and (self.low is not None or self.high is not None):
            on.append(("score", f"{self.score} {short(self.low)} to {short(self.high)}"))
        return on


def short(value: float | None) -> str:
    """A number for a reader."""
    if value is None:
        return "…"
    if isinstance(value, bool):
        return str(value)
    text = f"{value:.4g}"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e7 else text


def where(snapshot: Snapshot, wanted: Wanted, without: str = "") -> tuple[str, list[Any]]:
    """The condition on `pair p` and its values, but for the filter `without`."""
    tests, values = ["true"], []
    for name in FACETS:
        value = getattr(wanted, name)
        if value and name != without and name in columns(snapshot):
            tests.append(f"coalesce(p.\"{name}\", '') = ?" if value != "(none)" else f'p."{name}" IS NULL')
            values += [value] if value != "(none)" else []
    if wanted.q:
        tests.append("(contains(lower(p.instruction), lower(?)) OR p.key = ? OR contains(p.id, ?))")
        values += [wanted.q] * 3
    if wanted.label == UNLABELLED:
        tests.append("p.key NOT IN (SELECT key FROM label)")
    elif wanted.label:
        tests.append("p.key IN (SELECT key FROM label WHERE verdict = ?)")
        values.append(wanted.label)
    if wanted.score in snapshot.scores:
        for sign, side in ((">=", wanted.low), ("<", wanted.high)):
            if side is not None:
                tests.append(f'p."{wanted.score}" {sign} ?')
                values.append(side)
    return " AND ".join(tests), values


def columns(snapshot: Snapshot) -> frozenset[str]:
    """The columns of `pair`."""
    cached: frozenset[str] | None = snapshot.__dict__.get("_columns")
    if cached is None:
        cached = frozenset(row["column_name"] for row in snapshot.sql("DESCRIBE pair"))
        snapshot.__dict__["_columns"] = cached
    return cached


def order(snapshot: Snapshot, sort: str, category: str = "") -> str:
    """The ORDER BY of a `sort`: "margin", "near", "SCORE", "-SCORE" or "bound:SCORE"; by key otherwise."""
    if sort == "margin":
        return "abs(p.margin) NULLS LAST, p.key"
    if sort == "worst":
        return "p.margin NULLS LAST, p.key"
    name = sort.removeprefix("-").removeprefix("bound:")
    if name in snapshot.scores:
        if sort.startswith("bound:"):
            return f"{distance(snapshot, name)} NULLS LAST, p.key"
        return f'p."{name}" {"DESC" if sort.startswith("-") else ""} NULLS LAST, p.key'
    return "p.key"


def distance(snapshot: Snapshot, score: str, moved: Moved | None = None) -> str:
    """How far a score lies from the nearer side of its bound, as SQL over `pair p`; null where there is no bound."""
    cases = []
    for category in snapshot.categories:
        bound = snapshot.bound(score, category)
        if moved is not None and moved.category in (category, None):
            bound = moved.bound
        sides = [f'abs(p."{score}" - {side!r})' for side in (bound.min, bound.max) if side is not None]
        if sides:
            cases.append(f"WHEN p.category = {quoted(category)} THEN least({', '.join(sides)})")
    return f"CASE {' '.join(cases)} END" if cases else "NULL::DOUBLE"


@dataclass(frozen=True)
class Page:
    """Pairs of one page, and how many there are in all."""

    rows: list[Row]
    total: int
    number: int
    size: int = PAGE

    @property
    def pages(self) -> int:
        return max(1, math.ceil(self.total / self.size))


def pairs(snapshot: Snapshot, wanted: Wanted, size: int = PAGE) -> Page:
    """One page of pairs."""
    condition, values = where(snapshot, wanted)
    total = snapshot.one(f"SELECT count(*) FROM pair p WHERE {condition}", values)
    number = min(wanted.page, max(1, math.ceil(total / size)))
    # The order needs few columns, the page few rows: first which rows, then all of their columns.
    places = snapshot.sql(
        f"SELECT p.rowid AS row FROM pair p WHERE {condition} ORDER BY {order(snapshot, wanted.sort)} LIMIT ? OFFSET ?",
        [*values, size, (number - 1) * size],
    )
    rows = at_rows(snapshot, [place["row"] for place in places])
    return Page(rows, total, number, size)


def at_rows(snapshot: Snapshot, places: Sequence[int]) -> list[Row]:
    """The pairs at these rows of the table, in that order, each with its label."""
    if not places:
        return []
    found = snapshot.sql(f"""
        SELECT p.*, p.rowid AS row, l.verdict AS label, l.reason AS label_reason
        FROM pair p LEFT JOIN label l USING (key) WHERE p.rowid IN ({", ".join(map(str, places))})
    """)
    by_place = {row["row"]: row for row in found}
    return [by_place[place] for place in places]


def facets(snapshot: Snapshot, wanted: Wanted) -> dict[str, list[tuple[str, int]]]:
    """For each facet its values with the pairs that each would leave, most first; facets of one value are left out."""
    there = [name for name in FACETS if name in columns(snapshot)]
    free = [name for name in there if not getattr(wanted, name)]
    counted = _counts(snapshot, wanted, free)  # the same condition holds for all of these
    for name in there:
        if name not in free:
            counted |= _counts(snapshot, wanted, [name])
    found = {}
    for name in there:
        listed = [(value, n) for value, n in counted[name] if (name, value) != ("reason", "(none)")]
        if len(listed) > 1 or name not in free or (listed and name in ("outcome", "reason")):
            found[name] = listed[:FACET_VALUES]
    return found


def _counts(snapshot: Snapshot, wanted: Wanted, names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The values of some facets, counted in one pass; their own filter is left out."""
    if not names:
        return {}
    condition, values = where(snapshot, wanted, without=names[0])
    kept = ", ".join(f'p."{name}"' for name in names)
    parts = " UNION ALL ".join(
        f"SELECT '{name}' AS facet, coalesce(\"{name}\"::VARCHAR, '(none)') AS value, count(*) AS n "
        "FROM hit GROUP BY ALL"
        for name in names
    )
    rows = snapshot.sql(
        f"WITH hit AS MATERIALIZED (SELECT {kept} FROM pair p WHERE {condition}) {parts} ORDER BY n DESC, value",
        values,
    )
    return {name: [(row["value"], row["n"]) for row in rows if row["facet"] == name] for name in names}


def pair(snapshot: Snapshot, key: str) -> Row:
    """One pair. KeyError if there is none of that key."""
    rows = snapshot.sql(
        "SELECT p.*, l.verdict AS label, l.reason AS label_reason FROM pair p LEFT JOIN label l USING (key) "
        "WHERE p.key = ?",
        [key],
    )
    if not rows:
        raise KeyError(key)
    return rows[0]


def siblings(snapshot: Snapshot, job_key: str | None) -> list[Row]:
    """A job's candidates, the kept one first."""
    return snapshot.sql(
        f"SELECT * FROM pair p WHERE job_key = ? ORDER BY outcome <> '{KEPT}', editor, seed, key", [job_key]
    )


@dataclass(frozen=True)
class Measured:
    """A score of one pair beside its bound."""

    name: str
    value: float | None
    bound: Bound
    measured: bool
    error: str | None

    @property
    def side(self) -> str | None:
        return self.bound.verdict(self.value)


def measured(snapshot: Snapshot, row: Row) -> dict[str, list[Measured]]:
    """A pair's scores by filter, in the order of the cascade."""
    found: dict[str, list[Measured]] = {}
    for name in snapshot.scores:
        filter_ = name.partition(".")[0]
        seen = bool(row.get(f"{filter_}.measured", row.get(name) is not None))
        bound = snapshot.bound(name, row["category"])
        found.setdefault(filter_, []).append(
            Measured(name, row.get(name), bound, seen, row.get(f"{filter_}.error"))
        )
    return found


@dataclass(frozen=True)
class Histogram:
    """The distribution of a score: pairs that are kept and that are not, in equal steps from `low` to `high`. The first
    and the last bin hold what lies beyond, too."""

    score: str
    low: float
    high: float
    kept: list[int]
    other: list[int]
    known: int
    unknown: int


def histogram(
    snapshot: Snapshot, score: str, category: str = "", bins: int = BINS, also: Bound | None = None
) -> Histogram | None:
    """Of a score in a category, or in all, so wide that it shows the bounds and that one `also`; None where it was
    measured nowhere."""
    condition, values = where(snapshot, Wanted(category=category))
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
    return Histogram(score, low, high, kept, other, row["known"], row["unknown"])


def extent(
    snapshot: Snapshot, score: str, category: str, row: Row, also: Bound | None = None
) -> tuple[float, float]:
    """From where to where a chart of a score goes: its values but for outliers, and its bounds."""
    low, high = (float(value) for value in row["middle"])
    span = (high - low) or 1.0
    ends = [max(row["least"], low - span / 4), min(row["most"], high + span / 4)]
    names = [category] if category else [None, *snapshot.categories]
    for bound in [*(snapshot.bound(score, name) for name in names), also or Bound()]:
        ends += [side for side in (bound.min, bound.max) if side is not None]
    low, high = min(ends), max(ends)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def scatter(snapshot: Snapshot, x: str, y: str, category: str = "") -> list[Row]:
    """Points (key, x, y, outcome) of a sample of the pairs that have both scores, the same ones every time."""
    condition, values = where(snapshot, Wanted(category=category))
    return snapshot.sql(
        f"""SELECT p.key, p."{x}"::DOUBLE AS x, p."{y}"::DOUBLE AS y, p.outcome FROM pair p
        WHERE {condition} AND p."{x}" IS NOT NULL AND p."{y}" IS NOT NULL
        ORDER BY hash(p.key) LIMIT {SCATTER_POINTS}""",
        values,
    )


def with_moved(cascade: Cascade, moved: Iterable[Moved], categories: Sequence[str]) -> Cascade:
    """The cascade with some bounds moved. A bound of no category moves where categories share it, too."""
    default = dict(cascade.default_bounds)
    own = {name: dict(cascade.bounds_of(name)) for name in categories}
    for move in moved:
        shared = cascade.default_bounds.get(move.score, Bound())
        for name, bounds in own.items():
            if move.category == name or (move.category is None and bounds.get(move.score, Bound()) == shared):
                bounds[move.score] = move.bound
        if move.category is None:
            default[move.score] = move.bound
    return replace(cascade, default_bounds=default, bounds=own)


@dataclass(frozen=True)
class Kept:
    """Of one category, or of all: pairs that pass all bounds, as they stand and as they were moved."""

    category: str
    kept: int
    """Selected, as things stand."""
    passing: int
    then: int
    gained: int
    lost: int
    unmeasured: int
    """Lost their verdict: they failed the bound that was moved and were not measured further."""


def what_if(snapshot: Snapshot, moved: Sequence[Moved]) -> list[Kept]:
    """What moved bounds would pass, by category, from stored scores; the total last."""
    cascade = with_moved(snapshot.cascade, moved, snapshot.categories)
    after = f"coalesce(p.standing, {cascade.verdict_sql('p', 'p.category')})" if moved else "p.first"
    rows = snapshot.sql(f"""
        SELECT category, kept, sum(rows)::BIGINT AS n, before = '{KEPT}' AS passing, after = '{KEPT}' AS then_,
            starts_with(after, '{NOT_REACHED}') AND NOT starts_with(before, '{NOT_REACHED}') AS unmeasured
        FROM (
            SELECT p.category, p.outcome = '{KEPT}' AS kept, p.first AS before, {after} AS after, count(*) AS rows
            FROM pair p GROUP BY ALL
        ) GROUP BY ALL
    """)
    found = []
    for category in [*snapshot.categories, ""]:
        own = [row for row in rows if category in (row["category"], "")]

        def count(test: Any, of: list[Row] = own) -> int:
            return sum(row["n"] for row in of if test(row))

        found.append(
            Kept(
                category,
                count(lambda r: r["kept"]),
                count(lambda r: r["passing"]),
                count(lambda r: r["then_"]),
                count(lambda r: r["then_"] and not r["passing"]),
                count(lambda r: r["passing"] and not r["then_"]),
                count(lambda r: r["unmeasured"]),
            )
        )
    return found


def sides(snapshot: Snapshot, moved: Moved, at: float, count: int = 6) -> tuple[list[Row], list[Row]]:
    """The pairs nearest to a value of a score: below it, the nearest last, and from it on."""
    condition, values = where(snapshot, Wanted(category=moved.category or ""))
    if moved.category is None:
        own = [
            c
            for c in snapshot.categories
            if snapshot.bound(moved.score, c) == snapshot.bound(moved.score, None)
        ]
        condition += f" AND ({' OR '.join(f'p.category = {quoted(c)}' for c in own) or 'true'})"
    found = []
    for sign, direction in (("<", "DESC"), (">=", "ASC")):
        found.append(
            snapshot.sql(
                f"""SELECT p.*, l.verdict AS label FROM pair p LEFT JOIN label l USING (key)
                WHERE p.rowid IN (
                    SELECT p.rowid FROM pair p WHERE {condition} AND p.edited IS DISTINCT FROM NULL
                        AND p."{moved.score}" {sign} ? ORDER BY p."{moved.score}" {direction}, p.key LIMIT {count}
                ) ORDER BY p."{moved.score}" ASC, p.key""",
                [*values, at],
            )
        )
    return found[0], found[1]


def overrides(snapshot: Snapshot, moved: Sequence[Moved]) -> list[str]:
    """The recipe overrides that move these bounds. Both sides are written out: a bound is replaced whole."""
    made: dict[str, dict[str, Bound]] = {}
    texts = []
    for move in moved:
        if move.category is None:
            texts.append(f"filters.{move.score.replace('.', '.bounds.', 1)}={_flow(move.bound)}")
        else:
            made.setdefault(move.category, {})[move.score] = move.bound
    for category, bounds in made.items():
        assert snapshot.run is not None
        stated = {**snapshot.run.recipe.categories[category].bounds, **bounds}
        texts.append(
            f"categories.{category}.bounds={{{', '.join(f'{s}: {_flow(b)}' for s, b in stated.items())}}}"
        )
    return texts


def _flow(bound: Bound) -> str:
    """A bound as YAML on one line."""
    sides = [(name, getattr(bound, name)) for name in ("min", "max")]
    return "{" + ", ".join(f"{name}: {value!r}" for name, value in sides if value is not None) + "}"


def neighbours(rows: Sequence[Row], key: str) -> tuple[str | None, str | None]:
    """The keys before and after a key in a page's rows."""
    keys = [row["key"] for row in rows]
    if key not in keys:
        return None, None
    at = keys.index(key)
    return (keys[at - 1] if at else None), (keys[at + 1] if at + 1 < len(keys) else None)
