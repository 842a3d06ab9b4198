"""Verdicts: what the rows of photographs and candidates decide, without a build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from conftest import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.pipelines.building.verdicts import Coded, Photographs, candidates_sql, of_candidate
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.records import EDIT, Candidate, curate_table, score_table
from crispedit.pipelines.run import Run
from crispedit.shards import journal

RECIPE = ("categories={style: 1}", "filters={unchanged: {bounds: {changed_fraction: {min: 0.5}}}}")
GOOD = {"unchanged.measured": True, "unchanged.changed_fraction": 0.5}


def candidate(key: str = "k", category: str = "style", scores: Any = GOOD, **columns: Any) -> Candidate:
    return Candidate(key, "j", "p", category, "e", scores=scores, **columns)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (candidate(), ("kept", None)),
        (candidate(scores={**GOOD, "unchanged.changed_fraction": 0.49}),
         ("rejected", "unchanged.changed_fraction:low")),
        (candidate(scores={}), ("not_reached", "unchanged")),
        (candidate(error="it broke"), ("error", "edit")),
        (candidate(error="503", transient=True), ("transient", "edit")),
        (candidate(refusal="no_subject"), ("rejected", "no_subject")),
        (candidate(category="relight"), ("rejected", "category")),
    ],
)  # fmt: skip
def test_a_candidate_is_judged_by_its_row(tmp_path: Path, row: Candidate, verdict: tuple[str, str | None]):
    recipe = make_run(tmp_path / "run", tmp_path, *RECIPE).recipe
    assert of_candidate(recipe, row) == verdict
    lost = of_candidate(recipe, row, has_job=False)
    assert lost == (verdict if row.error or row.refusal else ("rejected", "no_job"))


@settings(max_examples=40)
@given(
    st.sampled_from([None, "no_room"]),
    st.sampled_from([(None, None), ("no", None), ("503", True)]),
    st.sampled_from(["style", "unheard of"]),
    st.booleans(),
    st.sampled_from([None, True]),
    st.sampled_from([None, "it broke"]),
    st.floats(0, 1),
)
def test_a_candidates_verdict_is_the_same_of_its_row_and_of_the_table(
    tmp_path_factory, refusal, failed, category, has_job, measured, error, score
):
    folder = tmp_path_factory.getbasetemp()
    run = make_run(folder / "run", folder, *RECIPE)
    scores = {"unchanged.measured": measured, "unchanged.error": error, "unchanged.changed_fraction": score}
    candidate = Candidate(
        "k", "j", "p", category, "e", refusal=refusal, error=failed[0], transient=failed[1], scores=scores
    )
    with duckdb.connect() as db:
        for name, schema, row in (
            ("edits", EDIT.committed_schema, {**candidate.row(), "source": None}),
            ("s", score_table(run.recipe.pair_cascade).schema, {"key": "k", **scores}),
            (
                "j",
                pa.schema([("job", pa.int64()), ("alive", pa.string())]),
                {"job": 0 if has_job else None, "alive": "p"},
            ),
        ):
            wanted = {column: row.get(column) for column in schema.names}
            db.register(name, pa.Table.from_pylist([wanted], schema=schema))
        [(found,)] = db.execute(f"SELECT {candidates_sql(run.recipe)} FROM (SELECT * FROM edits, j) e, s").fetchall()
    assert found == " ".join(filter(None, of_candidate(run.recipe, candidate, has_job=has_job)))


def test_codes_keep_the_words():
    words = pa.chunked_array([["kept", "error a"], ["kept", "rejected b"]])
    coded = Coded(words, "late")
    assert coded.passing().tolist() == [0, 2]
    coded.reject(np.array([2]), "late")
    assert coded.passing().tolist() == [0]
    columns = {name: column.to_pylist() for name, column in coded.columns().items()}
    assert columns == {"outcome": ["kept", "error", "rejected", "rejected"], "reason": [None, "a", "late", "b"]}
    assert Coded(pa.chunked_array([[]], pa.string()), "late").passing().size == 0


SQUARE, NEAR, FAR = 0x0F0F_3333_5555_00FF, 0x0F0F_3333_5555_00FE, 0x1234_5678_9ABC_DEF0
"""Hashes: NEAR differs from SQUARE in one bit, FAR in many."""


def photographed(root: Path, *waves: list[tuple[str, int | None]], **columns: Any) -> Run:
    """A run whose photographs are these (key, hash) in waves; `columns` replace those of every row."""
    run = make_run(root, root, "categories={style: 1}")
    for rows in waves:
        wave = Waves(run).add([], len(rows)).name
        made = []
        for number, (key, phash) in enumerate(rows):
            scores = {"resolution.short_side_px": 300.0, "duplicate.phash": phash}
            measured = {f"{name}.measured": True for name in run.recipe.source_cascade.filters}
            made.append({"uri": f"{wave} {number}", "key": key, **scores, **measured, **columns})
        journal.commit(run.folder("curate") / wave, curate_table(run.recipe.source_cascade), made, run.root)
    return run


def reasons(run: Run) -> list[str | None]:
    table = Photographs(run, Waves(run)).all()
    return [
        outcome if reason is None else reason
        for outcome, reason in zip(*(table.column(c).to_pylist() for c in ("outcome", "reason")), strict=True)
    ]


def test_of_the_same_bytes_the_first_is_kept_in_its_wave_and_in_later_ones(tmp_path: Path):
    run = photographed(tmp_path, [("a", SQUARE), ("a", SQUARE), ("b", FAR)], [("b", FAR), ("c", ~FAR)])
    assert reasons(run) == ["kept", "duplicate", "kept", "duplicate", "kept"]
    assert reasons(run) == ["kept", "duplicate", "kept", "duplicate", "kept"]  # as they are stored now


def test_of_nearly_the_same_pictures_the_first_is_kept(tmp_path: Path):
    run = photographed(tmp_path, [("a", SQUARE), ("b", NEAR), ("c", FAR)], [("d", NEAR), ("e", ~FAR)])
    assert reasons(run) == ["kept", "near_duplicate", "kept", "near_duplicate", "kept"]


def test_photographs_without_a_hash_are_like_no_other(tmp_path: Path):
    run = photographed(tmp_path, [("a", None), ("b", None), ("c", 0)], [("d", None)])
    assert reasons(run) == ["kept"] * 4


def test_what_is_not_kept_makes_no_duplicate(tmp_path: Path):
    run = photographed(tmp_path, [("a", SQUARE)], [("a", NEAR)])
    small = {"resolution.short_side_px": 255.0}
    assert set(reasons(photographed(tmp_path / "small", [("a", SQUARE)], [("a", NEAR)], **small))) == {
        "resolution.short_side_px:low"
    }
    assert reasons(run) == ["kept", "duplicate"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"error": "no JPEG"}, "unreadable"),
        ({"error": "503", "transient": True}, "unreadable"),
        ({"refusal": "too_large"}, "too_large"),
    ],
)
def test_what_cannot_be_read_or_is_refused_is_not_kept(tmp_path: Path, columns: dict[str, Any], reason: str):
    run = photographed(tmp_path, [("a", SQUARE)], **columns)
    assert reasons(run) == [reason]
    [outcome] = Photographs(run, Waves(run)).of(0).column("outcome").to_pylist()
    assert outcome == ("rejected" if "refusal" in columns else "transient" if "transient" in columns else "error")


def test_a_new_photograph_in_an_early_wave_is_seen_by_later_ones(tmp_path: Path):
    run = photographed(tmp_path, [("a", SQUARE)], [("b", FAR), ("c", ~FAR)])
    assert reasons(run) == ["kept"] * 3
    table = curate_table(run.recipe.source_cascade)
    row = {"uri": "wave-000000 9", "key": "b", "resolution.short_side_px": 300.0, "duplicate.phash": FAR}
    measured = {f"{name}.measured": True for name in run.recipe.source_cascade.filters}
    journal.commit(run.folder("curate") / "wave-000000", table, [{**row, **measured}], run.root)
    assert reasons(run) == ["kept", "kept", "duplicate", "kept"]


def test_a_wave_whose_parts_were_merged_is_not_judged_again(tmp_path: Path):
    run = photographed(tmp_path, [("a", SQUARE), ("b", FAR)], [("c", ~FAR)])
    photographs = Photographs(run, Waves(run))
    photographs.all()
    stored = sorted((run.root / "waves").glob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in stored]
    folder = run.folder("curate") / "wave-000000"
    [part] = journal.parts(folder)
    part.rename(part.with_name("part-other" + part.suffix))
    photographs.renamed(0)
    assert len(journal.parts(folder)) == 1
    assert Photographs(run, Waves(run)).all().num_rows == 3
    assert [path.stat().st_mtime_ns for path in stored] == before


def test_without_waves_there_are_no_verdicts(tmp_path: Path):
    run = make_run(tmp_path, tmp_path)
    assert Photographs(run, Waves(run)).all().num_rows == 0
