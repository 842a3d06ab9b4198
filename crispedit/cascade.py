"""The cascade: filters in order of cost, their bounds by category, and what the two decide about a row of scores.

Measuring and deciding are kept apart. `Cascade.measure` fills score columns and stops early on a row that has
already failed; `Cascade.verdict` (a row) and `Cascade.verdict_sql` (a table) are the same pure function of the columns.
For a filter `f` with a score `s` the columns are "f.s", "f.measured" (true once it ran) and "f.error".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from crispedit.bounds import Bound
from crispedit.parts import Filter
from crispedit.record import Sample, Score

KEPT, REJECTED, ERROR, NOT_REACHED = "kept", "rejected", "error", "not_reached"
"""The four outcomes. NOT_REACHED: no bound failed, but a filter that the verdict needs has not measured the row."""

Q = TypeVar("Q")
A = TypeVar("A")


def each(call: Callable[[Sequence[Q]], Sequence[A]], items: Sequence[Q]) -> list[A | Exception]:
    """One answer per item of a batched call. A batch that raises is halved until the items that cannot be done are
    alone with their exception, so one bad item never costs its neighbours (and a batch too big for memory shrinks)."""
    if not items:
        return []
    try:
        answers = list(call(items))
    except Exception as error:  # whatever a part, a codec or a driver raises is that item's outcome
        if len(items) == 1:
            return [error]
        middle = len(items) // 2
        return each(call, items[:middle]) + each(call, items[middle:])
    if len(answers) != len(items):
        raise AssertionError(f"{call} answered {len(answers)} times for {len(items)} items")
    return list(answers)


def describe(error: Exception) -> str:
    """One line for an error column."""
    return f"{type(error).__name__}: {error}"[:1000]


@dataclass(frozen=True)
class Cascade:
    """Filters by name, and for each category its bounds by "filter.score".

    A category that is not in `bounds` (a photograph has none) takes those of `default_bounds`.
    """

    filters: Mapping[str, Filter]
    default_bounds: Mapping[str, Bound]
    bounds: Mapping[str, Mapping[str, Bound]]

    @staticmethod
    def of(
        filters: Mapping[str, Filter],
        recipe_bounds: Mapping[str, Mapping[str, Bound]],
        category_bounds: Mapping[str, Mapping[str, Bound]],
    ) -> Cascade:
        """Cheapest first. A bound comes from the category, else from the recipe's filter section, else from the filter.

        ValueError for a bound on a score that its filter does not measure.
        """
        ordered = dict(sorted(filters.items(), key=lambda item: (item[1].cost, item[0])))
        default: dict[str, Bound] = {}
        for name, filter_ in ordered.items():
            for score, bound in {**filter_.bounds, **recipe_bounds.get(name, {})}.items():
                if score not in filter_.scores:
                    raise ValueError(
                        f"filters.{name}.bounds.{score}: {name} measures no such score; "
                        f"choose from {', '.join(filter_.scores)}"
                    )
                default[f"{name}.{score}"] = bound
        by_category = {}
        for category, own in category_bounds.items():
            for key in own:
                filter_name, _, score = key.partition(".")
                if filter_name in ordered and score not in ordered[filter_name].scores:
                    raise ValueError(
                        f"categories.{category}.bounds.{key}: {filter_name} measures no such score; "
                        f"choose from {', '.join(ordered[filter_name].scores)}"
                    )
            by_category[category] = {
                **default,
                **{key: bound for key, bound in own.items() if key.partition(".")[0] in ordered},
            }
        return Cascade(ordered, default, by_category)

    @property
    def columns(self) -> list[pa.Field]:
        """The score columns, in cascade order."""
        fields = []
        for name, filter_ in self.filters.items():
            fields += [
                pa.field(f"{name}.{score}", pa.int64() if kind is int else pa.float64())
                for score, kind in filter_.scores.items()
            ]
            fields += [pa.field(f"{name}.{note}", pa.string()) for note in filter_.notes]
            fields += [pa.field(f"{name}.measured", pa.bool_()), pa.field(f"{name}.error", pa.string())]
        return fields

    def bounds_of(self, category: str | None) -> Mapping[str, Bound]:
        return self.bounds.get(category or "", self.default_bounds)

    def measure(
        self,
        samples: Sequence[Sample],
        rows: Sequence[dict[str, Any]],
        *,
        own: Collection[str] | None = None,
        everything: bool = False,
    ) -> None:
        """Fill each sample's row with the scores it lacks, filter by filter (of `own` only, when given); unless
        `everything`, a filter is run only where the cascade's verdict waits for it."""
        for name, filter_ in self.filters.items():
            if own is not None and name not in own:
                continue
            todo = [
                index
                for index, row in enumerate(rows)
                if not row.get(f"{name}.measured")
                and (everything or self.verdict(row) == (NOT_REACHED, name))
            ]
            answers = each(filter_.measure, [samples[index] for index in todo])
            for index, answer in zip(todo, answers, strict=True):
                row = rows[index]
                row[f"{name}.measured"] = True
                row[f"{name}.error"] = None
                checked = answer if isinstance(answer, Exception) else _checked(name, filter_, answer)
                if isinstance(checked, Exception):
                    row[f"{name}.error"] = describe(checked)
                else:
                    row.update({f"{name}.{score}": value for score, value in checked.items()})

    def verdict(self, row: Mapping[str, Any]) -> tuple[str, str | None]:
        """(outcome, reason) of one row: the first filter of the cascade that errs, rejects or is missing decides.

        Reasons are stable words: "filter.score:low", "filter.score:high", or the filter's name for an error or a miss.
        """
        bounds = self.bounds_of(row.get("category"))
        for name, filter_ in self.filters.items():
            if row.get(f"{name}.error") is not None:
                return ERROR, name
            if not row.get(f"{name}.measured"):
                return NOT_REACHED, name
            for score in filter_.scores:
                bound = bounds.get(f"{name}.{score}")
                side = bound.verdict(row.get(f"{name}.{score}")) if bound is not None else None
                if side is not None:
                    return REJECTED, f"{name}.{score}:{side}"
        return KEPT, None

    def bounds_table(self, categories: Sequence[str]) -> pa.Table:
        """A row per category with columns "f.s.min" and "f.s.max", for SQL to join on."""
        rows = []
        for category in categories:
            bounds = self.bounds_of(category)
            row: dict[str, Any] = {"category": category}
            for key in self._scores():
                bound = bounds.get(key, Bound())
                row[f"{key}.min"], row[f"{key}.max"] = bound.min, bound.max
            rows.append(row)
        sides = [pa.field(f"{key}.{side}", pa.float64()) for key in self._scores() for side in ("min", "max")]
        return pa.Table.from_pylist(rows, schema=pa.schema([pa.field("category", pa.string()), *sides]))

    def verdict_sql(self, row: str = "r", category: str = "r.category") -> str:
        """A DuckDB expression that gives "outcome" or "outcome reason" over the alias of the rows.

        Bounds are literals, and only scores that have one are read; `category` where the bounds depend on it.
        """
        cases = []
        for name, filter_ in self.filters.items():
            cases.append(f"WHEN {row}.\"{name}.error\" IS NOT NULL THEN '{ERROR} {name}'")
            cases.append(f"WHEN {row}.\"{name}.measured\" IS NOT TRUE THEN '{NOT_REACHED} {name}'")
            for key in (f"{name}.{score}" for score in filter_.scores):
                for where, bound in self._bounds_sql(key, category):
                    for side, sign, word in ((bound.min, "<", "low"), (bound.max, ">", "high")):
                        if side is not None:
                            fails = f"{row}.\"{key}\" {sign} '{side!r}'::DOUBLE{where}"
                            cases.append(f"WHEN {fails} THEN '{REJECTED} {key}:{word}'")
        return f"CASE {' '.join(cases)} ELSE '{KEPT}' END" if cases else f"'{KEPT}'"

    def _bounds_sql(self, key: str, category: str) -> list[tuple[str, Bound]]:
        """The bounds of a score, each with the condition on the category (empty: none) under which it holds."""
        default = self.default_bounds.get(key, Bound())
        own = {name: bounds.get(key, Bound()) for name, bounds in self.bounds.items()}
        other = {name: bound for name, bound in own.items() if bound != default}
        # Not IN: DuckDB makes a join of every such list, and carries all columns through each.
        equal = {name: f"{category} = '" + name.replace("'", "''") + "'" for name in other}
        cases = []
        for bound in dict.fromkeys(other.values()):
            names = " OR ".join(equal[name] for name in other if other[name] == bound)
            cases.append((f" AND ({names})", bound))
        return [*cases, (f" AND ({' OR '.join(equal.values())}) IS NOT TRUE" if other else "", default)]

    def _scores(self) -> list[str]:
        return [f"{name}.{score}" for name, filter_ in self.filters.items() for score in filter_.scores]


def _checked(
    name: str, filter_: Filter, answer: Mapping[str, Score | str]
) -> Mapping[str, Score | str] | ValueError:
    """The answer if it has the declared scores, each a finite number or None, and no others than declared notes; else
    the error to record."""
    if set(answer) - set(filter_.notes) != set(filter_.scores):
        return ValueError(f"{name} answered {sorted(answer)}, but declares {sorted(filter_.scores)}")
    wrong = [
        score
        for score in filter_.scores
        if (value := answer[score]) is not None and (isinstance(value, str) or not math.isfinite(value))
    ]
    return ValueError(f"{name}.{wrong[0]} is not a finite number") if wrong else answer
