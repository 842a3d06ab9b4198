"""The cascade: filters in order of cost, their bounds by category, and what the two decide about a row of scores.

Measuring and deciding are separate. `Cascade.measure` fills score columns and stops early on a row that has already
failed. One rule decides per filter, for a row (`decide`) and for a table (`verdict_sql`); the first filter that does
not say "kept" gives the verdict. For a filter `f` with a score `s` the columns are "f.s", "f.measured" (true once it
ran) and "f.error"; an error without "f.measured" is transient, and the filter is run again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from crispedit.bounds import Bound
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, TRANSIENT, describe, each, is_transient
from crispedit.parts import Filter
from crispedit.record import Sample, Score

REGIME = "regeneration.regime"
"""The column with a pair's regime."""


@dataclass(frozen=True)
class Cascade:
    """Filters by name, and for each category its bounds by "filter.score".

    A category without an entry in `bounds`, and a photograph, take `default_bounds`. `regimes` has the bounds by regime
    and category, where they differ; the filter `regeneration` measures the regime.
    """

    filters: Mapping[str, Filter]
    default_bounds: Mapping[str, Bound]
    bounds: Mapping[str, Mapping[str, Bound]]
    regimes: Mapping[tuple[str, str], Mapping[str, Bound]] = field(default_factory=dict)

    @staticmethod
    def of(
        filters: Mapping[str, Filter],
        recipe_bounds: Mapping[str, Mapping[str, Bound]],
        category_bounds: Mapping[str, Mapping[str, Bound]],
        regime_bounds: Mapping[str, Mapping[str, Mapping[str, Bound]]] | None = None,
    ) -> Cascade:
        """The cascade, cheapest filter first; `regeneration` comes first of all where bounds depend on it. A bound
        comes from the regime and category, else from the category, else from the recipe's filter section, else from the
        filter.

        ValueError for a bound on a score that its filter does not measure, and for regimes that no filter measures.
        """
        first = REGIME.partition(".")[0] if regime_bounds else None
        ordered = dict(sorted(filters.items(), key=lambda item: (item[0] != first, item[1].price(), item[0])))
        if first is not None and first not in ordered:
            raise ValueError(f"regimes: bounds depend on {REGIME}, so filters must have {first}: {{}}")
        default: dict[str, Bound] = {}
        for name, filter_ in ordered.items():
            for score, bound in {**filter_.bounds, **recipe_bounds.get(name, {})}.items():
                _check(filter_, name, score, f"filters.{name}.bounds.{score}")
                default[f"{name}.{score}"] = bound
        by_category = {
            category: default | _of(ordered, own, f"categories.{category}.bounds")
            for category, own in category_bounds.items()
        }
        by_regime = {
            (regime, category): by_category.get(category, default) | _of(ordered, own, f"regimes.{regime}.{category}")
            for regime, categories in (regime_bounds or {}).items()
            for category, own in categories.items()
        }
        return Cascade(ordered, default, by_category, by_regime)

    @property
    def scores(self) -> Mapping[str, type[float] | type[int]]:
        """The type of every "filter.score"."""
        return {f"{name}.{score}": kind for name, one in self.filters.items() for score, kind in one.scores.items()}

    @property
    def columns(self) -> list[pa.Field]:
        """The score columns, in cascade order."""
        fields = []
        for name, filter_ in self.filters.items():
            types = {score: pa.int64() if kind is int else pa.float64() for score, kind in filter_.scores.items()}
            types |= dict.fromkeys(filter_.notes, pa.string()) | {"measured": pa.bool_(), "error": pa.string()}
            fields += [pa.field(f"{name}.{column}", type_) for column, type_ in types.items()]
        return fields

    def bounds_of(self, category: str | None, regime: str | None = None) -> Mapping[str, Bound]:
        """The bounds that hold for a category, or for its pairs of a regime."""
        own = self.regimes.get((regime or "", category or ""))
        return self.bounds.get(category or "", self.default_bounds) if own is None else own

    def measure(
        self,
        samples: Sequence[Sample],
        rows: Sequence[dict[str, Any]],
        *,
        own: Collection[str] | None = None,
        everything: bool = False,
    ) -> None:
        """Fill each sample's row with the scores that it lacks, filter by filter (only those in `own`, if given).
        Unless `everything`, a filter runs only on rows that no cheaper filter has rejected."""
        for name, filter_ in self.filters.items():
            if own is not None and name not in own:
                continue
            waits = ((NOT_REACHED, name), (TRANSIENT, name))
            todo = [
                index
                for index, row in enumerate(rows)
                if not row.get(f"{name}.measured") and (everything or self.verdict(row) in waits)
            ]
            answers = each(filter_.measure, [samples[index] for index in todo])
            for index, answer in zip(todo, answers, strict=True):
                checked = answer if isinstance(answer, Exception) else _checked(name, filter_, answer)
                if isinstance(checked, Exception):
                    rows[index].update(failed(name, checked))
                else:
                    rows[index].update({f"{name}.{score}": value for score, value in checked.items()})
                    rows[index].update({f"{name}.measured": True, f"{name}.error": None})

    def decide(self, name: str, row: Mapping[str, Any], bounds: Mapping[str, Bound]) -> tuple[str, str | None]:
        """(outcome, reason) of one filter on one row. Reasons are stable words: "filter.score:low",
        "filter.score:high", or the filter's name for an error or a miss."""
        failed = row.get(f"{name}.error") is not None
        if not row.get(f"{name}.measured"):
            return (TRANSIENT if failed else NOT_REACHED), name
        if failed:
            return ERROR, name
        for score in self.filters[name].scores:
            bound = bounds.get(f"{name}.{score}")
            side = bound.verdict(row.get(f"{name}.{score}")) if bound is not None else None
            if side is not None:
                return REJECTED, f"{name}.{score}:{side}"
        return KEPT, None

    def verdict(self, row: Mapping[str, Any]) -> tuple[str, str | None]:
        """(outcome, reason) of one row, from the first filter that does not keep it."""
        bounds = self.bounds_of(row.get("category"), row.get(REGIME))
        decisions = (self.decide(name, row, bounds) for name in self.filters)
        return next((decision for decision in decisions if decision[0] != KEPT), (KEPT, None))

    def has_transient_error(self, row: Mapping[str, Any]) -> bool:
        """Whether a filter had a transient error on the row."""
        return any(row.get(f"{name}.error") and not row.get(f"{name}.measured") for name in self.filters)

    def verdict_sql(self, row: str = "r", category: str = "r.category", filters: Collection[str] | None = None) -> str:
        """A DuckDB expression for "outcome" or "outcome reason" of the rows with this alias, by the whole cascade or
        only some filters. `category` is the SQL of the category that the bounds depend on."""
        names = self.filters if filters is None else filters
        cases = [case for name in names for case in self._cases_sql(name, row, category)]
        return f"CASE {' '.join(cases)} ELSE '{KEPT}' END" if cases else f"'{KEPT}'"

    def _cases_sql(self, name: str, row: str, category: str) -> Iterator[str]:
        """`decide` as SQL cases. Bounds are literals; only scores with a bound are read."""
        failed, measured = f'{row}."{name}.error" IS NOT NULL', f'{row}."{name}.measured"'
        yield f"WHEN {measured} IS NOT TRUE AND {failed} THEN '{TRANSIENT} {name}'"
        yield f"WHEN {measured} IS NOT TRUE THEN '{NOT_REACHED} {name}'"
        yield f"WHEN {failed} THEN '{ERROR} {name}'"
        for key in (f"{name}.{score}" for score in self.filters[name].scores):
            for where, bound in self.bounds_sql(key, row, category):
                for side, sign, word in ((bound.min, "<", "low"), (bound.max, ">", "high")):
                    if side is not None:
                        fails = f"{row}.\"{key}\" {sign} '{side!r}'::DOUBLE{f' AND {where}' if where else ''}"
                        yield f"WHEN {fails} THEN '{REJECTED} {key}:{word}'"

    def bounds_sql(self, key: str, row: str, category: str) -> list[tuple[str, Bound]]:
        """The bounds of a score, each with the SQL condition under which it holds (empty: always): those of regimes,
        then those of categories for all other rows. The conditions exclude each other."""
        moved = {
            f'({category} = {_text(of)} AND {row}."{REGIME}" = {_text(regime)})': bounds.get(key, Bound())
            for (regime, of), bounds in self.regimes.items()
            if bounds.get(key) != self.bounds_of(of).get(key)
        }
        others = f"({' OR '.join(moved)}) IS NOT TRUE" if moved else ""
        by_category = self._category_bounds_sql(key, category)
        return [*moved.items(), *((" AND ".join(filter(None, (where, others))), bound) for where, bound in by_category)]

    def _category_bounds_sql(self, key: str, category: str) -> list[tuple[str, Bound]]:
        default = self.default_bounds.get(key, Bound())
        own = {name: bounds.get(key, Bound()) for name, bounds in self.bounds.items()}
        other = {name: bound for name, bound in own.items() if bound != default}
        # Not IN: DuckDB turns each such list into a join that carries all columns.
        equal = {name: f"{category} = {_text(name)}" for name in other}
        cases = [
            (f"({' OR '.join(equal[name] for name in other if other[name] == bound)})", bound)
            for bound in dict.fromkeys(other.values())
        ]
        return [*cases, (f"({' OR '.join(equal.values())}) IS NOT TRUE" if other else "", default)]


def _check(filter_: Filter, name: str, score: str, place: str) -> None:
    if score not in filter_.scores:
        raise ValueError(f"{place}: {name} measures no such score; choose from {', '.join(filter_.scores)}")


def _of(filters: Mapping[str, Filter], bounds: Mapping[str, Bound], place: str) -> dict[str, Bound]:
    """The bounds on what these filters measure."""
    own = {key: bound for key, bound in bounds.items() if key.partition(".")[0] in filters}
    for key in own:
        name, _, score = key.partition(".")
        _check(filters[name], name, score, f"{place}.{key}")
    return own


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def failed(name: str, error: Exception) -> dict[str, Any]:
    """The columns of a filter that failed on a row."""
    passes = is_transient(error)
    return {f"{name}.measured": None if passes else True, f"{name}.error": describe(error)}


def _checked(name: str, filter_: Filter, answer: Mapping[str, Score | str]) -> Mapping[str, Score | str] | ValueError:
    """The answer, if it has exactly the declared scores (finite numbers or None) and at most the declared notes; else
    the error to record."""
    if set(answer) - set(filter_.notes) != set(filter_.scores):
        return ValueError(f"{name} answered {sorted(answer)}, but declares {sorted(filter_.scores)}")
    for score in filter_.scores:
        value = answer[score]
        if value is not None and (isinstance(value, str) or not math.isfinite(value)):
            return ValueError(f"{name}.{score} is not a finite number")
    return answer
