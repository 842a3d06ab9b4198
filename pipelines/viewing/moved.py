"""Moved bounds: what they would keep, from stored scores, and the recipe overrides for them.

Moved bounds are those of the recipe with these overrides, so a page decides as the run would.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.outcome import KEPT, NOT_REACHED
from crispedit.pipelines import recipe
from crispedit.pipelines.viewing.queries import PairsAddress, Row, at_rows, where
from crispedit.pipelines.viewing.snapshot import Snapshot


@dataclass(frozen=True)
class MovedBound:
    """A moved bound of a score, in one category (or its pairs of one regime), or (None) in all categories without a
    bound of their own."""

    score: str
    category: str | None
    regime: str | None
    bound: Bound

    @staticmethod
    def parse(text: str) -> MovedBound:
        """Parse "filter.score@category/regime:min,max" from a page's address; the regime, or both, may be missing.
        ValueError for another form."""
        form = re.fullmatch(r"([^@]+)(?:@([^/]*)(?:/(.*))?)?:([^:,]*),([^:]*)", text)
        if form is None or (form[3] and not form[2]):
            raise ValueError(f"{text!r} is not a moved bound of the form filter.score@category/regime:min,max")
        low, high = (float(side) if side else None for side in (form[4], form[5]))
        if not all(side is None or math.isfinite(side) for side in (low, high)):
            raise ValueError(f"{text!r}: a bound is a finite number")
        return MovedBound(form[1], form[2] or None, form[3] or None, Bound(min=low, max=high))

    @property
    def cell(self) -> tuple[str | None, str | None]:
        """(category, regime)"""
        return self.category, self.regime

    @property
    def place(self) -> str:
        """The score, category and regime, as in an address."""
        return f"{self.score}@{self.category or ''}{f'/{self.regime}' if self.regime else ''}"

    def __str__(self) -> str:
        low, high = ("" if side is None else repr(side) for side in (self.bound.min, self.bound.max))
        return f"{self.place}:{low},{high}"


@dataclass(frozen=True)
class Kept:
    """Counts for a category or all (""): pairs that pass all bounds, before and after moving."""

    category: str
    kept: int
    """Selected now."""
    passing: int
    then: int
    gained: int
    lost: int
    unmeasured: int
    """Undecided now: they failed the moved bound and were not measured further."""


COUNTED = {
    "kept": "kept",
    "passing": "passing",
    "then": "then_",
    "gained": "then_ AND NOT passing",
    "lost": "passing AND NOT then_",
    "unmeasured": "unmeasured",
}
"""What `Kept` counts, as conditions on pairs."""


def cascade(snapshot: Snapshot, moved: Sequence[MovedBound]) -> Cascade:
    """The cascade of the run's recipe with these moved bounds."""
    if not moved or snapshot.run is None:
        return snapshot.cascade
    wanted = tuple(overrides(snapshot, moved))
    if wanted not in snapshot.cascades:
        snapshot.cascades = {wanted: recipe.load(str(snapshot.run.root), wanted).pair_cascade}
    return snapshot.cascades[wanted]


def what_if(snapshot: Snapshot, moved: Sequence[MovedBound]) -> list[Kept]:
    """What moved bounds would pass, by category, from stored scores; the total last."""
    # Filters whose bounds were not moved decide as before.
    names = list(snapshot.cascade.filters)
    asked = sorted({names.index(move.score.partition(".")[0]) for move in moved})
    then = cascade(snapshot, moved)
    verdicts = [
        f"(({then.verdict_sql('p', 'p.category', [names[bit]])} <> '{KEPT}')::BIGINT << {bit})" for bit in asked
    ]
    fails = " | ".join([f"(p.fails & {~sum(1 << bit for bit in asked)})", *verdicts])
    counts = ", ".join(f'coalesce(sum(n) FILTER ({test}), 0)::BIGINT AS "{name}"' for name, test in COUNTED.items())
    rows = snapshot.sql(f"""
        SELECT if(grouping(category) = 1, '', category) AS category, {counts}
        FROM (
            SELECT *, standing IS NULL AND fails = 0 AS then_,
                standing IS NULL AND fails & -fails & waits <> 0 AND NOT waited AS unmeasured
            FROM (
                SELECT p.category, p.outcome = '{KEPT}' AS kept, p.first = '{KEPT}' AS passing, p.standing,
                    starts_with(p.first, '{NOT_REACHED}') AS waited, {fails} AS fails, p.waits, count(*) AS n
                FROM pair p GROUP BY ALL
            )
        ) GROUP BY ROLLUP (category)
    """)
    by_category = {row["category"]: Kept(**row) for row in rows}
    none = dict.fromkeys(COUNTED, 0)
    return [by_category.get(category) or Kept(category, **none) for category in [*snapshot.categories, ""]]


def sides(
    snapshot: Snapshot, moved: Sequence[MovedBound], last: MovedBound, at: float, count: int = 6
) -> tuple[list[Row], list[Row]]:
    """The pairs nearest to a value of a score, among those to which the last moved bound applies: below the value (the
    nearest last), and from it on."""
    condition, values = where(snapshot, PairsAddress(category=last.category or "", regime=last.regime or ""))
    cells = cascade(snapshot, moved).bounds_sql(last.score, "p", "p.category")
    condition += f" AND ({' OR '.join(cell or 'true' for cell, bound in cells if bound == last.bound) or 'true'})"
    sides = []
    for sign, direction in (("<", "DESC"), (">=", "ASC")):
        nearest = snapshot.sql(
            f"""SELECT p.rowid AS row FROM pair p WHERE {condition} AND p.edited IS DISTINCT FROM NULL
            AND p."{last.score}" {sign} $at ORDER BY p."{last.score}" {direction}, p.key LIMIT {count}""",
            values | {"at": at},
        )
        rows = at_rows(snapshot, [place["row"] for place in nearest], last.score)
        sides.append(sorted(rows, key=lambda row: (row[last.score], row["key"])))
    return sides[0], sides[1]


def overrides(snapshot: Snapshot, moved: Sequence[MovedBound]) -> list[str]:
    """The recipe overrides that move these bounds. Both sides are written, because an override replaces the whole
    bound."""
    assert snapshot.run is not None
    stated = snapshot.run.recipe
    texts: list[str] = []
    cells: dict[tuple[str, str | None], dict[str, Bound]] = {}
    for move in moved:
        if move.category is None:
            texts.append(f"filters.{move.score.replace('.', '.bounds.', 1)}={_flow(move.bound)}")
        else:
            cells.setdefault((move.category, move.regime), {})[move.score] = move.bound
    for (category, regime), bounds in cells.items():
        if regime is None:
            place, own = f"categories.{category}.bounds", stated.categories[category].bounds
        else:
            place = f"regimes.{regime}.{category}"
            own = next((of.get(category, {}) for name, of in stated.regimes.items() if name == regime), {})
        texts.append(f"{place}={{{', '.join(f'{s}: {_flow(b)}' for s, b in {**own, **bounds}.items())}}}")
    return texts


def _flow(bound: Bound) -> str:
    """A bound as YAML on one line."""
    sides = [(name, getattr(bound, name)) for name in ("min", "max")]
    return "{" + ", ".join(f"{name}: {value!r}" for name, value in sides if value is not None) + "}"
