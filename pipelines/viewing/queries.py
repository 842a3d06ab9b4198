"""The pages' queries over a snapshot: selecting, ordering and counting pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self
from urllib.parse import urlencode

from crispedit.bounds import Bound
from crispedit.cascade import REGIME
from crispedit.outcome import KEPT
from crispedit.pipelines.viewing.snapshot import Snapshot

PAGE = 48
LISTED = 60
"""Photographs or jobs on one page."""
FACETS = {name: name for name in ("outcome", "category", "reason", "editor", "dataset", "wave")} | {"regime": REGIME}
"""The facets to filter by, and their columns in `pair`."""
FACET_VALUES = 24
"""Most values of a facet on a page, the most frequent first."""
UNLABELLED = "none"
NONE = "(none)"
"""The facet value that stands for null."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Address:
    """The content of a page; its fields are the parameters of the page's address."""

    q: str = ""
    page: int = 1

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Self:
        """From the parameters of an address; others are ignored. ValueError for an invalid number."""
        given: dict[str, Any] = {field.name: parameters.get(field.name, "")[:500] for field in fields(cls)}
        given["page"] = max(1, int(given["page"])) if given["page"].isdecimal() else 1
        for name in given.keys() & {"low", "high"}:
            given[name] = float(given[name]) if given[name] else None
        return cls(**given)

    def query(self, **changes: Any) -> str:
        """The address's parameters with changes; any change resets the page number."""
        parameters = {
            name: value for name, value in {**vars(self), "page": 1, **changes}.items() if value not in ("", None)
        }
        return urlencode({name: value for name, value in parameters.items() if (name, value) != ("page", 1)})


@dataclass(frozen=True)
class PairsAddress(Address):
    """The content of a page of pairs."""

    outcome: str = ""
    category: str = ""
    reason: str = ""
    editor: str = ""
    dataset: str = ""
    wave: str = ""
    regime: str = ""
    label: str = ""
    score: str = ""
    low: float | None = None
    high: float | None = None
    """With `score`: only pairs whose score is in [low, high)."""
    flip: str = ""
    """With a comparison: "gained", "lost" or "reason"."""
    sort: str = ""

    @property
    def by(self) -> str:
        """The score that pairs are sorted by, if any."""
        return self.sort.removeprefix("-").removeprefix("bound:")

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """The active filters: (parameter, text)."""
        on = [(name, value) for name in (*FACETS, "label", "flip") if (value := getattr(self, name))]
        if self.q:
            on.append(("q", f"“{self.q}”"))
        if self.score and (self.low is not None or self.high is not None):
            on.append(("score", f"{self.score} {short(self.low)} to {short(self.high)}"))
        return on


def short(value: float | None) -> str:
    """A number in short form."""
    if value is None:
        return "…"
    if isinstance(value, bool):
        return str(value)
    text = f"{value:.4g}"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e7 else text


Values = dict[str, Any]
"""The named parameters of a query."""


def where(snapshot: Snapshot, wanted: PairsAddress) -> tuple[str, Values]:
    """The SQL condition on `pair p`, and its parameters."""
    tests, values = _beside_facets(snapshot, wanted)
    chosen, more = _chosen(snapshot, wanted, "p.")
    return " AND ".join([*tests, *chosen.values()]), values | more


def _chosen(snapshot: Snapshot, wanted: PairsAddress, alias: str = "") -> tuple[dict[str, str], Values]:
    """The conditions of the facets that filter."""
    given = {name: value for name in facet_names(snapshot) if (value := getattr(wanted, name))}
    columns = {name: f'{alias}"{FACETS[name]}"' for name in given}
    tests = {
        name: f"{columns[name]} IS NULL" if given[name] == NONE else f"{columns[name]} = ${name}" for name in given
    }
    return tests, {name: value for name, value in given.items() if value != NONE}


def _beside_facets(snapshot: Snapshot, wanted: PairsAddress) -> tuple[list[str], Values]:
    """The conditions other than facets: text search, label, and range of a score."""
    tests, values = ["true"], Values()
    if wanted.q:
        tests.append("(contains(p.words, lower($q)) OR p.key = $q OR contains(p.id, $q))")
        values["q"] = wanted.q
    if wanted.label == UNLABELLED:
        tests.append("p.key NOT IN (SELECT key FROM label)")
    elif wanted.label:
        tests.append("p.key IN (SELECT key FROM label WHERE verdict = $label)")
        values["label"] = wanted.label
    if wanted.score in snapshot.scores:
        for sign, name in ((">=", "low"), ("<", "high")):
            if (side := getattr(wanted, name)) is not None:
                tests.append(f'p."{wanted.score}" {sign} ${name}')
                values[name] = side
    return tests, values


def facet_names(snapshot: Snapshot) -> list[str]:
    """The facets that these pairs have."""
    return [name for name, column in FACETS.items() if column in snapshot.columns]


def order(snapshot: Snapshot, sort: str) -> str:
    """The ORDER BY of a `sort`: "margin", "near", "SCORE", "-SCORE" or "bound:SCORE"; by key otherwise."""
    if sort == "margin":
        return "abs(p.margin) NULLS LAST, p.key"
    if sort == "worst":
        return "p.margin NULLS LAST, p.key"
    name = PairsAddress(sort=sort).by
    if name in snapshot.scores:
        if sort.startswith("bound:"):
            return f"{distance(snapshot, name)} NULLS LAST, p.key"
        return f'p."{name}" {"DESC" if sort.startswith("-") else ""} NULLS LAST, p.key'
    return "p.key"


def distance(snapshot: Snapshot, score: str) -> str:
    """The distance of a score from the nearer side of its bound, as SQL over `pair p`; null without a bound."""
    cases = []
    for cell, bound in snapshot.cascade.bounds_sql(score, "p", "p.category"):
        sides = [f'abs(p."{score}" - {side!r})' for side in (bound.min, bound.max) if side is not None]
        if sides:
            cases.append(f"WHEN {cell or 'true'} THEN least({', '.join(sides)})")
    return f"CASE {' '.join(cases)} END" if cases else "NULL::DOUBLE"


@dataclass
class Page:
    """One page of a total number of rows."""

    total: int
    number: int
    size: int = PAGE
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.number = min(self.number, self.pages)

    @property
    def pages(self) -> int:
        return max(1, math.ceil(self.total / self.size))

    @property
    def limit(self) -> str:
        """The page's rows, as SQL."""
        return f"LIMIT {self.size} OFFSET {(self.number - 1) * self.size}"


def pairs(snapshot: Snapshot, wanted: PairsAddress, size: int = PAGE, total: int | None = None) -> Page:
    """One page of pairs; `total`: the number of all pairs, if known."""
    condition, values = where(snapshot, wanted)
    if total is None:
        total = int(snapshot.one(f"SELECT count(*) FROM pair p WHERE {condition}", values))
    page = Page(total, wanted.page, size)
    # Sorting needs few columns, the page few rows: so first the row numbers, then their columns.
    places = snapshot.sql(
        f"SELECT p.rowid AS row FROM pair p WHERE {condition} ORDER BY {order(snapshot, wanted.sort)} {page.limit}",
        values,
    )
    more = [wanted.by] if wanted.by in snapshot.scores else []
    page.rows = at_rows(snapshot, [place["row"] for place in places], *more)
    return page


def listing(snapshot: Snapshot, wanted: PairsAddress, table: str, text: str) -> tuple[Page, list[Row]]:
    """One page of photographs or jobs, and their counts by outcome and reason. `text`: the column that is searched."""
    columns = ["outcome", "reason", *(["category"] if table == "job" else [])]
    values = {name: value for name in [*columns, "q"] if (value := getattr(wanted, name))}
    tests = [f"contains(lower({text}), lower($q))" if name == "q" else f"{name} = ${name}" for name in values]
    condition = " AND ".join(["true", *tests])
    page = Page(snapshot.one(f"SELECT count(*) FROM {table} WHERE {condition}", values), wanted.page, LISTED)
    page.rows = snapshot.sql(f"SELECT * FROM {table} WHERE {condition} ORDER BY {text}, key {page.limit}", values)
    counts = snapshot.sql(f"SELECT outcome, reason, count(*) AS n FROM {table} GROUP BY ALL ORDER BY n DESC LIMIT 30")
    return page, counts


def at_rows(snapshot: Snapshot, places: Sequence[int], *more: str) -> list[Row]:
    """The cards of the pairs at these row numbers, in that order, each with its label and more columns."""
    if not places:
        return []
    cards = snapshot.sql(f"""
        SELECT {snapshot.card(*more)}, p.rowid AS row, l.verdict AS label, l.reason AS label_reason
        FROM pair p LEFT JOIN label l USING (key) WHERE p.rowid IN ({", ".join(map(str, places))})
    """)
    by_place = {row["row"]: row for row in cards}
    return [by_place[place] for place in places]


@dataclass(frozen=True)
class Facets:
    """The number of pairs, and for each facet its values with the number of pairs each would leave, most first."""

    total: int
    values: dict[str, list[tuple[str, int]]]


def facets(snapshot: Snapshot, wanted: PairsAddress) -> Facets:
    """Count facets in one pass over the pairs. Facets with one value are left out, unless they filter."""
    names = facet_names(snapshot)
    chosen, given = _chosen(snapshot, wanted)
    tests, values = _beside_facets(snapshot, wanted)
    parts = []
    for facet in ("", *names):
        value = f"coalesce(\"{FACETS[facet]}\"::VARCHAR, '{NONE}')" if facet else "''"
        condition = " AND ".join(["true", *(test for name, test in chosen.items() if name != facet)])
        parts.append(
            f"SELECT '{facet}' AS facet, {value} AS value, sum(n)::BIGINT AS n FROM cube WHERE {condition} GROUP BY ALL"
        )
    kept = ", ".join(f'p."{FACETS[name]}"' for name in names)
    rows = snapshot.sql(
        f"""WITH cube AS MATERIALIZED (
            SELECT {kept}, count(*) AS n FROM pair p WHERE {" AND ".join(tests)} GROUP BY ALL
        ) {" UNION ALL ".join(parts)} ORDER BY n DESC, value""",
        values | given,
    )
    facets = {}
    for facet in names:
        listed = [(row["value"], row["n"]) for row in rows if row["facet"] == facet]
        listed = [item for item in listed if (facet, item[0]) != ("reason", NONE)]
        if len(listed) > 1 or facet in chosen or (listed and facet in ("outcome", "reason")):
            facets[facet] = listed[:FACET_VALUES]
    return Facets(sum(row["n"] or 0 for row in rows if not row["facet"]), facets)


def pair(snapshot: Snapshot, key: str) -> Row:
    """One pair. KeyError for an unknown key."""
    labelled = "SELECT p.*, l.verdict AS label, l.reason AS label_reason FROM pair p LEFT JOIN label l USING (key)"
    return snapshot.of_key(f"{labelled} WHERE p.key = ?", key)


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
    by_filter: dict[str, list[Measured]] = {}
    for name in snapshot.scores:
        filter_ = name.partition(".")[0]
        seen = bool(row.get(f"{filter_}.measured", row.get(name) is not None))
        bound = snapshot.bound(name, row["category"], row.get(REGIME))
        by_filter.setdefault(filter_, []).append(
            Measured(name, row.get(name), bound, seen, row.get(f"{filter_}.error"))
        )
    return by_filter


def neighbours(keys: Sequence[str], key: str) -> tuple[str | None, str | None]:
    """What stands before and after a key in a page."""
    if key not in keys:
        return None, None
    around = [None, *keys, None]
    at = around.index(key)
    return around[at - 1], around[at + 1]
