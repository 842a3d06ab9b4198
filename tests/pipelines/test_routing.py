"""Editor routing: which editor makes a job's candidate follows from finished waves, is recorded, and is repeatable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import lose_rows, make_run

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, build, tables
from crispedit.pipelines.building import routing
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.recipe import EditSpec
from crispedit.pipelines.run import Run

IDLE, TINT = (
    f"""
from crispedit.parts import Editor
from crispedit.record import Edit

class Own(Editor):
    def edit(self, sources, jobs, seeds):
        return [Edit(source // {by}) for source in sources]
"""
    for by in (1, 2)
)


def edit(**prices: float | None) -> EditSpec:
    editors = {name: {"price": price} for name, price in prices.items()}
    return EditSpec.model_validate({"share": "measured", "editors": editors})


def test_the_editor_with_the_most_passing_candidates_per_price_gets_what_the_others_must_not_have():
    waves = [{"add": {"a": [30, 15], "b": [30, 20]}, "color": {"a": [19, 1], "b": [500, 400]}}]
    found = routing.shares(edit(a=None, b=None, c=None), ["add"], waves)
    assert found == {"add": dict.fromkeys("abc", 1 / 3)}  # c was not measured
    found = routing.shares(edit(a=None, b=None), ["add", "color", "style"], waves)
    assert found == {"add": {"a": 0.1, "b": 0.9}, "color": {"a": 0.5, "b": 0.5}, "style": {"a": 0.5, "b": 0.5}}
    assert routing.shares(edit(a=1.0, b=2.0), ["add"], waves) == {"add": {"a": 0.9, "b": 0.1}}
    twice = routing.shares(edit(a=None, b=None), ["color"], [*waves, *waves])
    assert twice == {"color": {"a": 0.1, "b": 0.9}}


def test_jobs_are_shared_by_their_keys_as_the_shares_say():
    of = {"a": 0.1, "b": 0.6, "c": 0.3}
    editors = [routing.editor_of(f"job {number}", of) for number in range(4000)]
    assert editors == [routing.editor_of(f"job {number}", of) for number in range(4000)]
    for name, share in of.items():
        assert editors.count(name) / 4000 == pytest.approx(share, abs=0.03)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.jpg").write_bytes(encode_jpeg(landscape(seed, 272, 256)))
    return folder


def made(root: Path, photos: Path, *overrides: str) -> Run:
    editors = (
        "{idle: {editor: routing_parts.idle}, tint: {editor: routing_parts.tint}, "
        "rescue: {editor: routing_parts.tint, when: failed}}"
    )
    return make_run(
        root,
        photos,
        f"edit={{share: measured, editors: {editors}}}",
        "categories={color: 3}",
        "filters={unchanged: {}}",
        "engine.wave_sources=1",
        *overrides,
    )


def by_editor(run: Run) -> dict[str, str]:
    """The editor of each job, but for the one that works on failed jobs."""
    rows = tables.connect(run).execute("SELECT job_key, editor FROM edit WHERE editor <> 'rescue'").fetchall()
    found = dict(rows)
    assert len(found) == len(rows)  # one editor a job
    return found


def test_a_build_measures_shares_and_records_and_comes_to_the_same_again(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "parts" / "routing_parts"
    package.mkdir(parents=True)
    (package / "idle.py").write_text(IDLE)
    (package / "tint.py").write_text(TINT)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(routing, "LEAST_MEASURED", 1)
    run = made(tmp_path / "run", many)
    build.build(run)
    shares = [wave.shares for wave in Waves(run)]
    assert len(shares) == 6
    equal = {"idle": 0.5, "tint": 0.5}
    assert shares[: routing.LAG] == [{"color": equal}] * routing.LAG
    assert shares[-1]["color"] == {"idle": 0.1, "tint": 0.9}
    jobs = by_editor(run)
    assert set(jobs.values()) == {"idle", "tint"}

    lines = {(line.editor, line.category): line for line in audit.audit(run).editors}
    idle, tint = lines["idle", "color"], lines["tint", "color"]
    assert idle.kept == 0
    assert idle.seconds_per_kept is None
    assert tint.kept > 0
    assert tint.keep_rate == tint.kept / tint.candidates
    assert tint.seconds_per_kept > 0
    assert tint.gpu_seconds_per_kept == 0
    assert tint.cost_per_kept is None
    assert tint.share == 0.9
    assert lines["rescue", "color"].share is None
    assert sum(line.candidates for line in lines.values()) == len(
        tables.connect(run).execute("SELECT key FROM edit").fetchall()
    )

    # Anew, in waves that overlap otherwise; and from a run that was cut short within its waves.
    again = made(tmp_path / "again", many, "engine.open_waves=1", "engine.rows_per_part=1")
    build.build(again)
    assert [wave.shares for wave in Waves(again)] == shares
    assert by_editor(again) == jobs
    cut = made(Path(shutil.copytree(run.root, tmp_path / "cut")), many)
    lose_rows(cut.folder("edit") / "wave-000001", lambda row: row["editor"] == "tint")
    lose_rows(cut.folder("edit") / "wave-000005", lambda row: True)
    build.build(cut)
    assert [wave.shares for wave in Waves(cut)] == shares
    assert by_editor(cut) == jobs


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ("{share: measured, editors: {compositor: {}}}", "needs two or more editors"),
        (
            "{share: measured, least_share: 0.6, editors: {a: {editor: compositor}, b: {editor: compositor}}}",
            r"cannot have 0\.6 each",
        ),
        (
            "{share: measured, editors: {a: {editor: compositor, price: 1}, b: {editor: compositor}}}",
            "every editor a `price`",
        ),
    ],
)
def test_shares_that_cannot_be_are_refused(photos: Path, tmp_path: Path, edit: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        make_run(tmp_path, photos, f"edit={edit}")
