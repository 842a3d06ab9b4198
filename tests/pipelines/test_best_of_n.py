"""Best of n: several editors and seeds a job; one that only works where those before it have failed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import lose_rows, make_run

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import build, tables
from crispedit.pipelines.building.stream import Build
from crispedit.pipelines.dry_run import dry_run
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import pair_verdicts, source_verdicts
from crispedit.shards import journal

FIRST, SECOND, THIRD = ("first: {editor: compositor, seeds: 2}", "second: {editor: compositor, when: failed}",
                        "third: {editor: compositor, when: failed}")  # fmt: skip
STRICT = "filters.unchanged.bounds.changed_fraction.min=0.08"
"""A bound that some edits of the compositor meet and others do not."""


def made(root: Path, photos: Path, *editors: str, bound: str = STRICT) -> Run:
    return make_run(root, photos, bound, f"edit.editors={{{', '.join(editors)}}}", "categories={color: 1, add: 1}")


def candidates(run: Run) -> dict[str, dict[str, list[str]]]:
    """Verdicts by job and editor."""
    db = tables.connect(run)
    db.execute(f"CREATE VIEW s AS FROM read_parquet('{run.folder('select') / 'selection.parquet'}')")
    found: dict[str, dict[str, list[str]]] = {}
    rows = db.execute(
        "SELECT e.job_key, e.editor, s.outcome, s.reason FROM s JOIN edit e USING (key) ORDER BY s.key"
    ).fetchall()
    for job, editor, outcome, reason in rows:
        found.setdefault(job, {}).setdefault(editor, []).append(outcome if reason != "not_best" else reason)
    return found


def waiting(run: Run, step: str) -> dict[str, int]:
    """What is left to do in a step, by stage."""
    flow = Build(run, [step])
    found = {stage.name: flow.waiting(stage.name) for stage in flow.stages}
    return {name: rows for name, rows in found.items() if rows and name != "compact"}


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three editors, built."""
    run = made(tmp_path_factory.mktemp("whole") / "run", photos, FIRST, SECOND, THIRD)
    build.build(run)
    return run


def test_a_later_editor_works_only_where_all_before_it_failed(whole: Run):
    found = candidates(whole)
    by_first = {job: set(verdicts["first"]) for job, verdicts in found.items()}
    assert {len(verdicts["first"]) for verdicts in found.values()} == {2}
    passed = {job for job, outcomes in by_first.items() if outcomes != {"rejected"}}
    assert 0 < len(passed) < len(found)
    assert {job for job, verdicts in found.items() if "second" in verdicts} == set(found) - passed
    assert all(sum(v.count("kept") for v in verdicts.values()) <= 1 for verdicts in found.values())
    by_second = {job for job, verdicts in found.items() if set(verdicts.get("second", ["kept"])) == {"rejected"}}
    assert {job for job, verdicts in found.items() if "third" in verdicts} == by_second
    assert by_second
    assert waiting(whole, "edit") == {}


def test_a_build_cut_short_between_passes_goes_on_to_the_same_candidates(whole: Run, photos: Path, tmp_path: Path):
    """As it stands when the first editor has just finished."""
    shutil.copytree(whole.root, tmp_path / "pieces")
    pieces = made(tmp_path / "pieces", photos, FIRST, SECOND, THIRD)
    lose_rows(pieces.folder("edit"), lambda row: row["editor"] != "first")
    for part in journal.parts(pieces.folder("score")):
        part.unlink()
    assert waiting(pieces, "edit") == {}  # nothing is measured, so nothing has failed yet
    build.step(pieces, "score")
    assert set(waiting(pieces, "edit")) == {"edit:second"}
    build.build(pieces)
    assert candidates(pieces) == candidates(whole)
    build.build(pieces)
    assert candidates(pieces) == candidates(whole)


def test_where_the_first_editor_satisfies_the_second_is_never_asked(photos: Path, tmp_path: Path):
    bound = "filters={unchanged: {bounds: {changed_fraction: {min: 0}}}}"
    run = made(tmp_path / "run", photos, "first: {editor: compositor}", SECOND, bound=bound)
    build.build(run)
    assert {editor for verdicts in candidates(run).values() for editor in verdicts} == {"first"}


def test_the_best_of_a_jobs_candidates_is_chosen_by_scores(tmp_path: Path):
    """By measured scores alone: a moved weight makes and measures nothing."""
    rng = np.random.default_rng(0)
    grainy = tmp_path / "grainy"
    grainy.mkdir()
    for seed in range(2):  # the compositor's seed is its grain, which it has where the photograph has some
        noisy = landscape(seed, 288, 256) + rng.normal(0, 9, (256, 288, 3))
        (grainy / f"{seed}.jpg").write_bytes(encode_jpeg(noisy.clip(0, 255).astype(np.uint8)))
    three = ("edit.editors={first: {editor: compositor, seeds: 3}}", "categories={add: 2}")
    run = make_run(tmp_path / "run", grainy, *three)
    build.build(run)

    def chosen(*best: str) -> list[tuple[float, float, float, int]]:
        """Least, kept and greatest score of each job's passing candidates, and the seed of the kept one."""
        again = make_run(run.root, grainy, *three, *best)
        db = tables.connect(again)
        db.register("s", pair_verdicts(again, source_verdicts(again)))
        return db.execute(
            "SELECT min(score), any_value(score) FILTER (kept), max(score), any_value(seed) FILTER (kept) FROM ("
            "SELECT e.job_key, \"unchanged.mean_abs\" AS score, s.outcome = 'kept' AS kept, e.seed FROM s "
            "JOIN score USING (key) JOIN edit e USING (key) WHERE kept OR s.reason = 'not_best') "
            "GROUP BY job_key ORDER BY job_key"
        ).fetchall()

    assert any(least < greatest for least, _, greatest, _ in chosen())
    assert {seed for *_, seed in chosen()} == {0}
    assert all(kept == greatest for _, kept, greatest, _ in chosen("select.best={unchanged.mean_abs: 1}"))
    assert all(kept == least for least, kept, _, _ in chosen("select.best={unchanged.mean_abs: -0.5}"))
    with pytest.raises(ValueError, match=r"select.best.clip.target: no filter measures it; .* unchanged.mean_abs"):
        make_run(run.root, grainy, "select.best={clip.target: 1}")


def test_the_dry_run_counts_the_passes_apart(photos: Path, tmp_path: Path):
    found = dry_run(made(tmp_path / "run", photos, "first: {editor: compositor}", SECOND), 3)
    rows = {step.step: step.rows for step in found.steps}
    assert rows["edit"] > rows["edit second"] == rows["score second"] > 0


def test_the_first_editor_has_none_to_wait_for(photos: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"edit.editors.second.when is failed, but no editor comes before it"):
        made(tmp_path / "run", photos, SECOND, FIRST)
