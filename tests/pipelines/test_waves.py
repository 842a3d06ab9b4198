"""Waves: each is planned from its own folders, and how the source is cut into them changes no pair."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_build import shard_bytes, statistics

from crispedit.images import decode_jpeg, encode_jpeg
from crispedit.outcome import KEPT
from crispedit.pipelines import build
from crispedit.pipelines.building.stream import Build
from crispedit.pipelines.building.verdicts import Photographs
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps import select
from crispedit.shards import journal
from crispedit.shards.journal import Table


@pytest.fixture
def repeating(photos: Path, tmp_path: Path) -> Path:
    """Twelve files: each photograph, the same bytes under a later name, and a slightly smaller copy."""
    folder = tmp_path / "repeating"
    shutil.copytree(photos, folder)
    for photograph in sorted(photos.iterdir()):
        shutil.copy(photograph, folder / f"z-{photograph.name}")
        smaller = cv2.resize(decode_jpeg(photograph.read_bytes()), (368, 276), interpolation=cv2.INTER_AREA)
        (folder / f"y-{photograph.name}").write_bytes(encode_jpeg(np.asarray(smaller)))
    return folder


def verdicts(run: Run) -> list[dict[str, Any]]:
    return sorted(pq.read_table(run.folder("select") / "sources.parquet").to_pylist(), key=lambda row: row["uri"])


def test_what_repeats_an_earlier_wave_is_a_duplicate_whatever_the_size_of_waves(repeating: Path, tmp_path: Path):
    runs = [
        make_run(tmp_path / f"run-{size}", repeating, "categories={style: 1}", f"engine.wave_sources={size}")
        for size in ("null", 1, 5)
    ]
    for run in runs:
        build.build(run)
    assert [len(Waves(run)) for run in runs] == [1, 12, 3]
    whole = verdicts(runs[0])
    assert {row["reason"] for row in whole} == {None, "duplicate", "near_duplicate"}
    assert sum(row["outcome"] == KEPT for row in whole) == 4
    for run in runs[1:]:
        assert verdicts(run) == whole
        assert shard_bytes(run) == shard_bytes(runs[0])
        assert statistics(run) == statistics(runs[0])


def test_candidates_are_judged_alike_some_waves_at_a_time(
    repeating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    large = "filters.unchanged.bounds.changed_fraction.min=0.3"  # a new style is, a new colour is not
    run = make_run(tmp_path / "run", repeating, "categories={style: 2, color: 2}", "engine.wave_sources=1", large)
    build.build(run)
    whole = pq.read_table(run.folder("select") / select.SELECTION)
    assert {row["outcome"] for row in whole.to_pylist()} > {KEPT}
    monkeypatch.setattr(select, "TOGETHER", 1)
    assert len(select.wave_groups(run)) == 12
    assert select.select(run).equals(whole)
    first, second, *_ = journal.parts(run.folder("edit"))
    # The same candidates in two waves, as when a photograph was unreadable in the first one for a while.
    shutil.copy(first, second.parent / f"part-{'0' * 32}.parquet")
    assert select.select(run).equals(whole)


def test_a_moved_bound_judges_later_waves_again(repeating: Path, tmp_path: Path):
    small = ("categories={style: 1}", "engine.wave_sources=4")
    strict = "curate.filters.resolution.bounds.short_side_px.min=280"  # the smaller copies fail it
    build.build(make_run(tmp_path / "run", repeating, *small))
    moved = make_run(tmp_path / "run", repeating, *small, strict)
    build.build(moved)
    fresh = make_run(tmp_path / "fresh", repeating, *small, strict)
    build.build(fresh)
    assert verdicts(moved) == verdicts(fresh)
    assert shard_bytes(moved) == shard_bytes(fresh)


def test_a_finished_run_is_one_part_a_table_and_wave_and_opens_no_wave(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "engine.wave_sources=2", "engine.rows_per_part=1")
    build.build(run)
    for table in ("curate", "annotate", "edit", "score"):
        assert [part.parent.name for part in journal.parts(run.folder(table))] == ["wave-000000", "wave-000001"]
    assert len(list(run.folder("edit").rglob("*.tar"))) == 2
    flow = Build(run)
    assert flow.finished()
    assert flow.in_work == {}


def test_a_wave_is_planned_from_its_own_folders(photos: Path, tmp_path: Path):
    """The tables of a finished wave are not read: it does not matter that they are gone."""
    run = make_run(tmp_path / "run", photos, "categories={style: 1}", "engine.wave_sources=2")
    build.build(run)
    for table in ("annotate", "edit", "score"):
        shutil.rmtree(run.folder(table) / "wave-000001")
    for table in ("annotate", "edit", "score"):
        (run.folder(table) / "wave-000000").rename(run.folder(table) / "wave-away")
    waves = Waves(run)
    finished = waves[0].finished
    assert finished is not None
    kept = {part: size for part, size in finished.parts.items() if part.startswith("curate")}
    waves.change(0, finished=type(finished)(**{**vars(finished), "parts": kept}))
    flow = Build(run, ["annotate"])
    assert flow.waiting("annotate") == 2


def test_photographs_are_judged_once(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "categories={style: 1}", "engine.wave_sources=2")
    build.build(run)
    times = [path.stat().st_mtime_ns for path in sorted((run.root / "waves").glob("*.parquet"))]
    Photographs(run, Waves(run)).all()
    assert [path.stat().st_mtime_ns for path in sorted((run.root / "waves").glob("*.parquet"))] == times


ATTEMPTS = Table(
    pa.schema([("key", pa.string()), ("n", pa.int64()), ("error", pa.string()), ("transient", pa.bool_())])
)
COLUMNS = (("s", pa.float64()), ("measured", pa.bool_()), ("error", pa.string()))
MEASURED = Table(
    pa.schema([("key", pa.string()), *((f"{f}.{name}", kind) for f in "ab" for name, kind in COLUMNS)]), completes=True
)
kinds = st.sampled_from(["good", "permanent", "transient"])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("xyz"), kinds), min_size=1, max_size=8))
def test_of_several_attempts_the_best_counts_and_compacting_keeps_it(tmp_path_factory, attempts):
    folder = tmp_path_factory.mktemp("attempts")
    for number, (key, kind) in enumerate(attempts):
        error = None if kind == "good" else "no"
        row = {"key": key, "n": number, "error": error, "transient": kind == "transient" or None}
        journal.commit(folder, ATTEMPTS, [row])
    rows = {row["key"]: row for row in journal.read(folder, ATTEMPTS).to_pylist()}
    order = ["good", "permanent", "transient"]
    for key in {key for key, _ in attempts}:
        best = min((kind for of, kind in attempts if of == key), key=order.index)
        assert attempts[rows[key]["n"]] == (key, best)
    journal.compact(folder, ATTEMPTS)
    assert len(journal.parts(folder)) == 1
    assert {row["key"]: row for row in journal.read(folder, ATTEMPTS).to_pylist()} == rows


def test_rows_of_a_filter_complete_and_replace_each_other(tmp_path: Path):
    def row(key: str, **columns: Any) -> dict[str, Any]:
        return {"key": key, **{name.replace("_", "."): value for name, value in columns.items()}}

    journal.commit(tmp_path, MEASURED, [row("x", a_s=1.0, a_measured=True), row("y", a_error="503")])
    again = row("y", a_s=2.0, a_measured=True)
    journal.commit(tmp_path, MEASURED, [row("x", b_error="bad", b_measured=True), again])
    journal.commit(tmp_path, MEASURED, [row("x", b_s=3.0, b_measured=True)])
    for _ in range(2):
        x, y = journal.read(tmp_path, MEASURED).to_pylist()
        assert (x["a.s"], x["b.s"], x["b.error"], x["b.measured"]) == (1.0, 3.0, None, True)
        assert (y["a.s"], y["a.error"], y["b.measured"]) == (2.0, None, None)
        journal.compact(tmp_path, MEASURED)


def test_a_lost_part_of_the_listing_is_made_again_and_its_waves_stay(photos: Path, tmp_path: Path):
    """Its photographs are in a wave already: they are not those of a new one, and that wave waits for them."""
    run = make_run(tmp_path / "run", photos, "categories={style: 1}", "engine.wave_sources=1")
    build.build(run)
    before = shard_bytes(run), statistics(run)
    shutil.rmtree(run.folder("shards"))
    for part in journal.parts(run.folder("listing")):
        part.unlink()
    shutil.rmtree(run.folder("curate") / "wave-000001")
    build.build(run)
    assert len(Waves(run)) == 4
    assert (shard_bytes(run), statistics(run)) == before
