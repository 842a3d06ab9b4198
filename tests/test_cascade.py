"""The cascade: decides the same of a row and of a table, measures only what is needed, and isolates failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, each
from crispedit.parts import Filter
from crispedit.record import Sample, Score


class Cheap(Filter):
    scores: ClassVar = {"a": float, "b": float}
    bounds: ClassVar = {"a": Bound(min=0.2)}
    cost: ClassVar = 1.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [{"a": float(s.source_jpeg.decode()), "b": None} for s in samples]


class Dear(Filter):
    scores: ClassVar = {"c": int}
    bounds: ClassVar = {"c": Bound(max=5)}
    cost: ClassVar = 9.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [{"c": len(s.key)} for s in samples]


class Broken(Filter):
    scores: ClassVar = {"d": float}
    cost: ClassVar = 5.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [{"d": float("nan") if s.key == "nan" else 1.0} for s in samples]


CASCADE = Cascade.of({"dear": Dear(), "cheap": Cheap()}, {}, {"style": {"cheap.a": Bound(max=0.1)}, "add": {}})


def sample(key: str, a: float) -> Sample:
    return Sample(key=key, source_jpeg=str(a).encode(), edited_jpeg=b"")


def test_runs_cheapest_first_and_stops_at_a_failed_bound():
    rows = [{"category": "add"}, {"category": "add"}]
    CASCADE.measure([sample("k", 0.1), sample("k", 0.3)], rows)
    assert list(CASCADE.filters) == ["cheap", "dear"]
    assert "dear.measured" not in rows[0]
    assert CASCADE.verdict(rows[0]) == (REJECTED, "cheap.a:low")
    assert rows[1]["dear.c"] == 1
    assert CASCADE.verdict(rows[1]) == (KEPT, None)


def test_measures_everything_when_asked():
    rows = [{"category": "add"}]
    CASCADE.measure([sample("k", 0.1)], rows, everything=True)
    assert rows[0]["dear.measured"]
    assert CASCADE.verdict(rows[0]) == (REJECTED, "cheap.a:low")


def test_only_named_filters_are_run():
    rows = [{"category": "add"}]
    CASCADE.measure([sample("k", 0.3)], rows, own=["dear"], everything=True)
    assert rows == [{"category": "add", "dear.c": 1, "dear.measured": True, "dear.error": None}]


def test_a_failure_may_pass_until_the_filter_has_measured():
    assert CASCADE.has_transient_error({"cheap.error": "503"})
    assert not CASCADE.has_transient_error({"cheap.error": "it broke", "cheap.measured": True})
    assert not CASCADE.has_transient_error({"cheap.measured": True})
    assert not CASCADE.has_transient_error({})


def test_a_category_has_bounds_of_its_own():
    rows = [{"category": "style"}, {"category": "style"}]
    CASCADE.measure([sample("k", 0.05), sample("k", 0.3)], rows)
    assert CASCADE.verdict(rows[0]) == (KEPT, None)
    assert CASCADE.verdict(rows[1]) == (REJECTED, "cheap.a:high")


def test_an_unknown_score_passes_and_a_nan_is_an_error():
    cascade = Cascade.of({"broken": Broken()}, {"broken": {"d": Bound(min=0)}}, {})
    rows = [{}, {}]
    cascade.measure([sample("nan", 0), sample("fine", 0)], rows)
    assert cascade.verdict(rows[0]) == (ERROR, "broken")
    assert cascade.verdict(rows[1]) == (KEPT, None)
    with pytest.raises(ValueError, match="NaN"):
        Bound(min=0).verdict(float("nan"))
    assert Bound(min=0).verdict(None) is None


def test_a_bound_on_a_score_that_is_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"filters\.cheap\.bounds\.zzz.*choose from a, b"):
        Cascade.of({"cheap": Cheap()}, {"cheap": {"zzz": Bound()}}, {})
    with pytest.raises(ValueError, match=r"categories\.add\.bounds\.cheap\.zzz.*choose from a, b"):
        Cascade.of({"cheap": Cheap()}, {}, {"add": {"cheap.zzz": Bound()}})


def test_a_bound_that_nothing_passes_is_refused():
    with pytest.raises(ValueError, match="nothing could pass"):
        Bound(min=2, max=1)


numbers = st.none() | st.floats(-1, 1, allow_nan=False) | st.integers(-3, 3).map(float)
limits = st.none() | st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])
bounds = st.tuples(limits, limits).map(
    lambda two: Bound(min=two[0], max=two[1]) if None in two else Bound(min=min(two), max=max(two))
)
rows_of_scores = st.fixed_dictionaries(
    {
        "category": st.sampled_from(["add", "style", "unheard of", None]),
        "cheap.a": numbers,
        "cheap.b": numbers,
        "cheap.measured": st.sampled_from([True, None]),
        "cheap.error": st.sampled_from([None, None, "it broke"]),
        "dear.c": st.none() | st.integers(0, 9),
        "dear.measured": st.sampled_from([True, None]),
        "dear.error": st.sampled_from([None, None, "it broke"]),
    }
)


@given(st.lists(rows_of_scores, min_size=1, max_size=20), bounds, bounds, bounds, bounds)
def test_the_verdict_of_a_row_is_the_verdict_of_the_table(rows, a, b, c, own):
    cascade = Cascade.of(
        {"cheap": Cheap(), "dear": Dear()},
        {"cheap": {"a": a, "b": b}, "dear": {"c": c}},
        {"add": {}, "style": {"cheap.b": own}},
    )
    schema = pa.schema([pa.field("n", pa.int64()), pa.field("category", pa.string()), *cascade.columns])
    db = duckdb.connect()
    db.register("rows", pa.Table.from_pylist([{"n": n, **row} for n, row in enumerate(rows)], schema=schema))
    found = db.execute(f"SELECT {cascade.verdict_sql('r')} FROM rows r ORDER BY n").fetchall()
    expected = [" ".join(filter(None, cascade.verdict(row))) for row in rows]
    assert [row[0] for row in found] == expected


@given(st.lists(st.integers(0, 9), max_size=30))
def test_each_answers_once_per_item_whatever_raises(items):
    def call(batch: Sequence[int]) -> list[int]:
        if any(item == 7 for item in batch):
            raise RuntimeError("seven")
        return [item * 2 for item in batch]

    answers = each(call, items)
    assert len(answers) == len(items)
    for item, answer in zip(items, answers, strict=True):
        assert isinstance(answer, RuntimeError) if item == 7 else answer == item * 2


def test_not_reached_names_the_filter_that_is_missing():
    assert CASCADE.verdict({"category": "add", "cheap.measured": True, "cheap.a": 0.5}) == (NOT_REACHED, "dear")


class Regeneration(Filter):
    scores: ClassVar = {"noise_floor": float}
    notes: ClassVar = ("regime",)
    cost: ClassVar = 20.0

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score | str]]:
        return [{"noise_floor": 0.0, "regime": "exact"} for _ in samples]


BY_REGIME = Cascade.of(
    {"dear": Dear(), "cheap": Cheap(), "regeneration": Regeneration()},
    {},
    {"style": {"cheap.a": Bound(max=0.1)}, "add": {}},
    {"regenerated": {"add": {"cheap.a": Bound(min=0.6)}, "style": {"cheap.a": Bound()}}},
)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "style", "o'ther", None]),
            st.sampled_from(["exact", "regenerated", None]),
            st.sampled_from([None, 0.05, 0.3, 0.7]),
        ),
        min_size=1,
    )
)
def test_a_regime_has_bounds_of_its_own_in_rows_and_in_sql(cases):
    rows = [
        {"n": n, "category": category, "regeneration.regime": regime, "cheap.a": a, "cheap.b": None, "dear.c": 1}
        | {f"{name}.{end}": value for name in BY_REGIME.filters for end, value in (("measured", True), ("error", None))}
        | {"regeneration.noise_floor": 0.0}
        for n, (category, regime, a) in enumerate(cases)
    ]
    schema = pa.schema([("n", pa.int64()), ("category", pa.string()), *BY_REGIME.columns])
    table = pa.Table.from_pylist(rows, schema=schema)
    told = duckdb.from_arrow(table).query("r", f"SELECT {BY_REGIME.verdict_sql()} FROM r ORDER BY n").fetchall()
    assert [outcome for (outcome,) in told] == [
        outcome if reason is None else f"{outcome} {reason}" for outcome, reason in map(BY_REGIME.verdict, rows)
    ]


def test_what_bounds_depend_on_is_measured_first():
    assert next(iter(BY_REGIME.filters)) == "regeneration"
    row = {"category": "add", "regeneration.regime": "regenerated", "regeneration.measured": True}
    row |= {"cheap.a": 0.3, "cheap.measured": True, "dear.measured": True, "dear.c": 1}
    assert BY_REGIME.verdict(row) == (REJECTED, "cheap.a:low")
    assert BY_REGIME.verdict(row | {"regeneration.regime": "exact"}) == (KEPT, None)
    with pytest.raises(ValueError, match="filters must have regeneration"):
        Cascade.of({"cheap": Cheap()}, {}, {}, {"exact": {"add": {}}})
    with pytest.raises(ValueError, match=r"regimes\.exact\.add\.cheap\.z: cheap measures no such score"):
        Cascade.of({"cheap": Cheap(), "regeneration": Regeneration()}, {}, {}, {"exact": {"add": {"cheap.z": Bound()}}})
