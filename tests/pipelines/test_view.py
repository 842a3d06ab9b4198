"""`crispedit view` without a browser: its pages, who may ask for them, its labels; all agree with the tables."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from conftest import make_run
from starlette.testclient import TestClient

from crispedit import images
from crispedit.outcome import KEPT
from crispedit.pipelines import audit, build, cli, recipe, steps, tables, view
from crispedit.pipelines.calibration import calibrate, labelled
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps import select
from crispedit.pipelines.steps.select import pair_verdicts, source_verdicts
from crispedit.pipelines.viewing import comparison, labels, overview, queries, report, snapshot
from crispedit.pipelines.viewing import moved as moved_bounds
from crispedit.pipelines.viewing.guard import Guard
from crispedit.pipelines.viewing.labels import Labels
from crispedit.pipelines.viewing.moved import MovedBound
from crispedit.pipelines.viewing.queries import PairsAddress
from crispedit.pipelines.viewing.server import Site, ViewedRun
from crispedit.pipelines.viewing.snapshot import Snapshot

STRICT = "filters.unchanged.bounds.changed_fraction.min=0.05"
STRICTER = {"unchanged.changed_fraction": {"min": 0.15}}
LOOSER = {"unchanged.changed_fraction": {"min": 0.002}}
LOOSE = "unchanged.changed_fraction@:0.001,"
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Run:
    """A run of which a bound rejects about half."""
    options = (STRICT, "score.measure_everything=true", "filters.regeneration={}")
    made = make_run(tmp_path_factory.mktemp("view") / "run", photos, *options)
    build.build(made)
    return made


@pytest.fixture(scope="module")
def seen(run: Run) -> Iterator[Snapshot]:
    with snapshot.of_run(run.root) as taken:
        yield taken


def client_of(path: Path, labelled: Path, *, host: str = "127.0.0.1", token: str | None = None) -> TestClient:
    """A client of the whole server, guard included, as a browser on this machine is one."""
    site = Site(ViewedRun(view.taker(str(path)), Labels(labelled)))
    return TestClient(Guard(site.app(), host, token), base_url="http://127.0.0.1:7266")


@pytest.fixture
def client(run: Run, tmp_path: Path) -> TestClient:
    return client_of(run.root, tmp_path / "labels.csv")


def keys(answer: Any) -> list[str]:
    return [part.partition('"')[0] for part in answer.text.split('data-pair="')[1:]]


def test_every_page_answers_and_every_picture_is_one(client: TestClient, seen: Snapshot):
    row = seen.sql("SELECT * FROM pair WHERE edited IS NOT NULL AND mask IS NOT NULL LIMIT 1")[0]
    for path in ("/", "/pairs", "/bounds", "/label", "/compare", "/photographs", "/jobs", f"/pair/{row['key']}"):
        assert client.get(path).status_code == 200, path
    assert client.get(f"/job/{row['job_key']}").status_code == 200
    for side in ("source", "edited", "mask", "change", "overlay"):
        picture = client.get(f"/image/this/{row['key']}/{side}?w=240")
        assert images.decode_jpeg(picture.content).shape[1] == 240
    assert client.get(f"/photograph/{row['source_key']}?w=240").status_code == 200


def test_the_pages_count_what_the_tables_hold(client: TestClient, run: Run, seen: Snapshot):
    counts = [count for count in audit.audit(run).counts if count.step == "select"]
    assert seen.one(f"SELECT count(*) FROM pair WHERE outcome = '{KEPT}'") == sum(count.kept for count in counts)
    for count in counts:
        for reason, number in count.rejected.items():
            page = queries.pairs(seen, PairsAddress(category=count.category, reason=reason))
            assert page.total == number
            assert {row["reason"] for row in page.rows} == {reason}
    shown = client.get("/pairs?outcome=rejected")
    assert len(keys(shown)) == sum(sum(count.rejected.values()) for count in counts)


def test_the_page_of_bounds_opens_with_the_score_that_rejects_most(client: TestClient, seen: Snapshot):
    worst = seen.one("SELECT reason FROM pair WHERE outcome = 'rejected' GROUP BY ALL ORDER BY count(*) DESC LIMIT 1")
    assert f'data-score="{worst.rpartition(":")[0]}"' in client.get("/bounds").text


def test_the_current_bounds_of_a_category_are_its_own(client: TestClient):
    """`style` allows a displacement of 4 px and `motion` of 3 px: the chart of one shows no line of the other."""
    page = client.get("/bounds?score=alignment.displacement_px&category=style").text
    chart = page.partition('id="bound"')[2].partition("</svg>")[0]
    assert "≤ 4<" in chart
    assert "≤ 3<" not in chart


def test_candidates_of_different_sources_are_each_shown_with_their_own(run: Run, tmp_path: Path):
    """The compositor may draw into a photograph what it then edits; another editor of the job gets the photograph."""
    site = Site(ViewedRun(view.taker(str(run.root)), Labels(tmp_path / "labels.csv")))
    pages, db = TestClient(site.app()), site.shown.snapshot.db
    key, job = db.execute("SELECT key, job_key FROM pair WHERE source IS NOT NULL LIMIT 1").fetchone()
    shared = "SELECT * REPLACE ('other' AS editor, 'a' AS key) FROM pair WHERE key = ?"
    own = "SELECT * REPLACE ('b' AS key, edited AS source) FROM pair WHERE key = ?"
    shown = []
    for added in (shared, own):
        db.execute(f"INSERT INTO pair {added}", [key])
        shown.append(pages.get(f"/job/{job}").text.count("/source?w="))
    assert shown == [1, 3]


def test_sorting_and_paging_show_each_pair_once(seen: Snapshot):
    for sort in (
        "",
        "margin",
        "worst",
        "unchanged.mean_abs",
        "-unchanged.mean_abs",
        "bound:unchanged.changed_fraction",
    ):
        pages = [queries.pairs(seen, PairsAddress(sort=sort, page=number), size=5) for number in range(1, 7)]
        shown = [row["key"] for page in pages[: pages[0].pages] for row in page.rows]
        assert len(shown) == len(set(shown)) == pages[0].total
    rows = queries.pairs(seen, PairsAddress(sort="-unchanged.mean_abs")).rows
    values = [row["unchanged.mean_abs"] for row in rows if row["unchanged.mean_abs"] is not None]
    assert values == sorted(values, reverse=True)


def test_moved_bounds_keep_what_select_would(run: Run, seen: Snapshot, photos: Path):
    moved = [MovedBound.parse(LOOSE)]
    rows = moved_bounds.what_if(seen, moved)
    overrides = moved_bounds.overrides(seen, moved)
    then = Run(recipe.load(str(run.root), [*overrides, f"run={run.root}"]))
    verdicts = pair_verdicts(then, source_verdicts(then, store=False)).to_pylist()
    kept = {row["key"] for row in verdicts if row["outcome"] == KEPT}
    against = comparison.against_bounds(seen, overrides, "moved", "moved_test")
    total = comparison.moves(seen, against)[-1]
    assert total.both + total.gained == len(kept) > rows[-1].kept
    assert rows[-1].then >= len(kept)
    flipped = comparison.flipped(seen, against, PairsAddress(flip="gained"), 100)
    assert {row["key"] for row in flipped.rows} <= kept
    assert flipped.total == total.gained


def test_a_moved_bound_rejects_by_its_own_value(client: TestClient):
    page = client.get("/compare?m=unchanged.changed_fraction@:0.15,&flip=lost").text
    assert "then: unchanged.changed_fraction below 0.15" in page


def test_a_bound_of_one_category_leaves_the_others(seen: Snapshot):
    rows = {
        row.category: row for row in moved_bounds.what_if(seen, [MovedBound.parse("unchanged.changed_fraction@add:0,")])
    }
    assert rows["add"].gained > 0
    assert all(not row.gained and not row.lost for name, row in rows.items() if name not in ("add", ""))
    last = MovedBound.parse("unchanged.changed_fraction@add:0.01,")
    below, above = moved_bounds.sides(seen, [last], last, 0.01)
    assert {row["category"] for row in [*below, *above]} <= {"add"}
    assert all(row["unchanged.changed_fraction"] < 0.01 for row in below)
    assert all(row["unchanged.changed_fraction"] >= 0.01 for row in above)


@pytest.fixture(scope="module")
def regimes(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Iterator[Snapshot]:
    """The same measurements under a recipe whose bounds differ by regime."""
    root = tmp_path_factory.mktemp("view") / "regimes"
    shutil.copytree(run.root, root)
    own = {"regenerated": {"add": STRICTER}, "exact": {"remove": STRICTER, "color": STRICTER, "add": LOOSER}}
    made = Run(recipe.load(str(root), [f"regimes={json.dumps(own)}"]))
    made.store_recipe(steps.identities(steps.of(made)))
    select.select(made)
    with snapshot.of_run(root) as taken:
        yield taken


@pytest.mark.parametrize(
    "moved",
    [
        [],
        ["@:0.02,"],
        ["@add:0.02,"],
        ["@add/exact:0.2,"],
        ["@color/exact:,", "@:0.3,"],
        ["@add/regenerated:0.001,", "@add:0.1,0.5"],
    ],
)
def test_bounds_of_a_regime_decide_in_the_browser_as_in_the_run(regimes: Snapshot, moved: list[str]):
    bounds = [MovedBound.parse(f"unchanged.changed_fraction{text}") for text in moved]
    root, overrides = regimes.root, moved_bounds.overrides(regimes, bounds)
    then = Run(recipe.load(str(root), overrides))
    with tables.connect(then) as db:
        select.first_pass(then, db, select.source_verdicts(then, store=False))
        passing = dict(
            db.execute(f"SELECT category, count(*) FROM verdicts WHERE verdict = '{KEPT}' GROUP BY 1").fetchall()
        )
    shown = {row.category: row.then for row in moved_bounds.what_if(regimes, bounds) if row.category}
    assert {category: n for category, n in shown.items() if n} == passing
    regime = {row["regeneration.regime"] for row in regimes.sql('SELECT DISTINCT "regeneration.regime" FROM pair')}
    assert {"exact", "regenerated"} & regime
    for last in bounds:  # only pairs that this bound decides on lie on its sides
        cascade = then.recipe.pair_cascade
        for row in [row for side in moved_bounds.sides(regimes, bounds, last, 0.05) for row in side]:
            own = cascade.bounds_of(row["category"], row["regeneration.regime"])
            assert own[last.score] == last.bound


def test_a_run_with_regimes_has_its_pages(regimes: Snapshot, tmp_path: Path):
    client = client_of(regimes.root, tmp_path / "labels.csv")
    score = "unchanged.changed_fraction"
    for path in (
        "/",
        "/pairs?sort=margin",
        f"/pairs?sort=bound:{score}&regime=exact",
        f"/bounds?score={score}&category=add&regime=exact",
        f"/bounds/what-if?m={score}@add/exact:0.01,&score={score}&exact=1",
    ):
        assert client.get(path).status_code == 200, path
    text = client.get(f"/bounds/what-if?m={score}@add/exact:0.01,&score={score}").text
    assert "regimes.exact.add={unchanged.changed_fraction: {min: 0.01}}" in text
    assert client.get(f"/bounds?m={score}@/exact:0.1,").status_code == 400
    strict = keys(client.get("/pairs?category=add&reason=unchanged.changed_fraction:low"))
    for key in strict:
        row = queries.pair(regimes, key)
        bound = STRICTER if row["regeneration.regime"] == "regenerated" else LOOSER
        shown = queries.measured(regimes, row)["unchanged"][0].bound
        assert row["regeneration.regime"] == "global" or shown.min == bound["unchanged.changed_fraction"]["min"]


def test_apply_selects_again(photos: Path, tmp_path: Path):
    made = make_run(tmp_path / "run", photos, STRICT, "categories={add: 1, style: 1}")
    build.build(made)
    client = client_of(made.root, tmp_path / "labels.csv")
    origin = {"origin": "http://127.0.0.1:7266"}
    before = sum(count.kept for count in audit.audit(made).counts if count.step == "select")
    assert client.post(f"/bounds/apply?m={LOOSE}").status_code == 403
    answer = client.post("/bounds/apply?m=unchanged.changed_fraction@:1.5,", headers=origin)
    now = Run(recipe.load(str(made.root), [f"run={made.root}"]))
    assert now.recipe.pair_cascade.bounds_of("add")["unchanged.changed_fraction"].min == 1.5
    after = sum(count.kept for count in audit.audit(now).counts if count.step == "select")
    assert answer.json() == {"kept": after, "waiting": 0, "next": f"crispedit pack {made.root}"}
    assert after < before


def test_labels_are_what_calibrate_reads(client: TestClient, run: Run, seen: Snapshot, tmp_path: Path):
    origin = {"origin": "http://127.0.0.1:7266"}
    rows = seen.sql("SELECT key, outcome FROM pair WHERE outcome IN ('kept', 'rejected') ORDER BY key LIMIT 6")
    for number, row in enumerate(rows):
        verdict = "good" if number < 4 else "bad"
        given = {"key": row["key"], "verdict": verdict, "reason": "leaks"}
        assert client.post("/label", content=json.dumps(given), headers=origin).status_code == 200
    taken_back = {"key": rows[5]["key"], "verdict": ""}
    assert client.post("/label", content=json.dumps(taken_back), headers=origin).json() == {"labelled": 5}
    with (tmp_path / "labels.csv").open(newline="") as lines:
        written = list(csv.DictReader(lines))
    assert list(written[0]) == list(labels.COLUMNS)
    assert [row["verdict"] for row in written] == ["good"] * 4 + ["bad", "bad", ""]
    assert len(Labels(tmp_path / "labels.csv")) == 5
    expected = sum((row["outcome"] == KEPT) == (number < 4) for number, row in enumerate(rows[:5])) / 5
    again = Labels(tmp_path / "labels.csv")
    again.fill(seen)
    assert labels.against(seen).agreement.agreement == expected
    seen.db.execute("DELETE FROM label")


def test_labels_teach_bounds_that_keep_what_was_wrongly_rejected(run: Run, tmp_path: Path, capsys):
    root = tmp_path / "run"
    shutil.copytree(run.root, root)
    client = client_of(root, root / "labels.csv")
    origin = {"origin": "http://127.0.0.1:7266"}
    low = "unchanged.changed_fraction:low"
    assert "change no bound" in client.get("/label/learned").text
    wrongly = keys(client.get(f"/pairs?reason={low}"))
    assert len(wrongly) >= 5
    for key in wrongly:
        given = json.dumps({"key": key, "verdict": "good", "reason": ""})
        assert client.post("/label", content=given, headers=origin).status_code == 200
    page = client.get("/label")
    assert "/label/learned" in page.text
    assert f"crispedit calibrate {root}<" in page.text  # it finds the labels by itself
    to = client.get("/label/learned", follow_redirects=False)
    assert to.status_code == 303
    moved = [part for name, part in parse_qsl(urlsplit(to.headers["location"]).query) if name == "m"]
    assert any(part.startswith("unchanged.changed_fraction@") for part in moved)
    assert client.get(to.headers["location"]).status_code == 200
    applied = client.post("/bounds/apply?" + urlencode([("m", part) for part in moved]), headers=origin)
    assert applied.status_code == 200
    left = keys(client.get(f"/pairs?reason={low}"))  # of regimes with less than five good pairs
    assert set(left) < set(wrongly)
    assert len(left) < labelled.LEAST_GOOD
    parser = argparse.ArgumentParser()
    calibrate.add_arguments(parser)
    assert calibrate.run(parser.parse_args([str(root)])) == 0
    assert f"{len(wrongly)}" in capsys.readouterr().out


def test_a_snapshot_follows_the_run(photos: Path, tmp_path: Path):
    made = make_run(tmp_path / "run", photos, "categories={add: 1, style: 1}")
    made.store_recipe(steps.identities(steps.of(made)))
    client = client_of(made.root, tmp_path / "labels.csv")  # nothing is committed yet
    assert "No pair is kept yet" in client.get("/").text
    build.build(made)
    with snapshot.of_run(made.root) as after:
        assert after.one("SELECT count(*) FROM pair") > 0
        assert after.stamp != snapshot.committed(Run(recipe.load(str(made.root), [f"run={tmp_path / 'x'}"])))


def test_it_opens_while_another_process_builds(photos: Path, tmp_path: Path):
    made = make_run(tmp_path / "run", photos, "categories={add: 1, style: 1}")
    made.store_recipe(steps.identities(steps.of(made)))
    command = [sys.executable, "-m", "crispedit.pipelines.cli", "-q", "build", str(made.root)]
    shown, seen = ViewedRun(view.taker(str(made.root)), Labels(tmp_path / "labels.csv")), []
    client = TestClient(Site(shown).app())
    with subprocess.Popen(command) as builder:
        while builder.poll() is None:
            for path in ("/", "/bounds", "/jobs", "/fresh", "/pairs"):
                answer = client.get(path)
                assert answer.status_code == 200, path
            seen.append(len(keys(answer)))
            time.sleep(0.2)
    assert builder.returncode == 0
    assert seen == sorted(seen)  # what is committed stays
    shown.take()
    with snapshot.of_run(made.root) as after:
        assert len(keys(client.get("/pairs"))) == after.one("SELECT count(*) FROM pair") > seen[0]


def test_only_its_own_pages_may_ask(client: TestClient, run: Run, tmp_path: Path):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "localhost:7266"}).status_code == 200
    given = json.dumps({"key": "x", "verdict": "good"})
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
        assert client.post("/label", content=given, headers=headers).status_code == 403
    assert client.post("/label", content=given, headers={"origin": "http://127.0.0.1:7266"}).status_code == 404
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_another_address_asks_for_the_token(run: Run, tmp_path: Path):
    client = client_of(run.root, tmp_path / "labels.csv", host="0.0.0.0", token="secret")
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    answer = client.get("/pairs?token=secret&q=x", follow_redirects=False)
    assert answer.headers["location"] == "/pairs?q=x"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert client.get("/pairs").status_code == 200  # by the cookie


def test_nothing_but_the_runs_pictures_is_served(client: TestClient, seen: Snapshot):
    key = seen.one("SELECT key FROM pair LIMIT 1")
    for path in (
        "/static/../server.py",
        "/static/base.html.jinja",
        "/image/this/../../recipe.yaml/source",
        f"/image/this/{key}/..%2f..%2frecipe.yaml",
        f"/image/other/{key}/source",
        "/image/this/nothing/source",
        "/photograph/nothing",
        "/pair/nothing",
        "/job/nothing",
        "/recipe.yaml",
        "/labels.csv",
    ):
        assert client.get(path).status_code == 404, path
    for path in (
        f"/image/this/{key}/source?w=99999",
        "/bounds?score=nothing",
        "/bounds?m=x",
        "/pairs?low=x",
        "/label?order=x",
    ):
        assert client.get(path).status_code == 400, path


def test_texts_are_escaped_and_sql_is_only_text(client: TestClient):
    for path in (
        f"/pairs?q={NASTY}",
        f"/pairs?category={NASTY}",
        "/pairs?q='; DROP TABLE pair; --",
        f"/jobs?q={NASTY}",
    ):
        answer = client.get(path)
        assert answer.status_code == 200
        assert NASTY not in answer.text
    assert len(keys(client.get("/pairs"))) > 0


def test_a_shard_set_is_shown_too(run: Run, tmp_path: Path):
    client = client_of(run.folder("shards"), tmp_path / "labels.csv")
    shown = keys(client.get("/pairs"))
    with snapshot.of_shards(str(run.folder("shards"))) as packed:
        assert len(shown) == packed.one("SELECT count(*) FROM pair") > 0
        assert "unchanged.changed_fraction" in packed.scores
        assert packed.one("SELECT DISTINCT options FROM pair") == "{}"
    for path in ("/", "/bounds", "/label", "/compare", "/jobs", f"/pair/{shown[0]}"):
        assert client.get(path).status_code == 200, path
    assert images.decode_jpeg(client.get(f"/image/this/{shown[0]}/overlay?w=240").content).shape[1] == 240


def test_fields_of_other_tools_are_texts_or_unknown():
    row = snapshot.row_of_meta(
        "a", "add", {"editor_options": {"steps": 4}, "transform": {}, "instruction": "Add."}, False
    )
    assert (row["options"], row["transform"], row["instruction"]) == ('{"steps": 4}', None, "Add.")


def test_what_is_neither_a_run_nor_a_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ValueError, match="neither a run"):
        view.taker(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("not of labels\n")
    assert cli.main(["view", "runs/mein"]) == 2
    assert "error: runs/mein does not exist" in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="names the columns key,id,verdict"):
        Labels(tmp_path / "labels.csv")


def test_the_report_is_one_small_file_with_examples(run: Run, seen: Snapshot):
    counts = audit.audit(run)
    text = report.html(seen, counts)
    assert len(text.encode()) < 5_000_000
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count("data:image/jpeg;base64,") >= 2 * 6
    reasons = {reason for count in counts.counts if count.step == "select" for reason in count.rejected}
    assert reasons
    assert all(reason in text for reason in reasons)
    light = report.html(seen, counts, light=True)
    assert "data:image" not in light
    assert len(light) < len(text) / 3


def test_the_report_tells_datasets_apart_and_how_the_run_went(run: Run):
    seconds = {"busy_seconds": 3600.0, "loading_seconds": 60.0, "held_seconds": 7200.0}
    stage = {"done": 20, **seconds, "gpus": 0.5}
    session = {"started": 0.0, "updated": 100.0, "stages": {"judge": stage}}
    folder = run.root / "progress"
    folder.mkdir(exist_ok=True)
    file = folder / "20260101T000000-1.json"
    file.write_text(json.dumps(session))
    with snapshot.of_run(run.root) as taken:
        taken.db.execute("UPDATE pair SET dataset = if(category = 'add', 'one', 'two')")
        rows = overview.by_dataset(taken)
        assert {row["dataset"] for row in rows} == {"one", "two"}
        assert sum(row["kept"] for row in rows) == taken.one(f"SELECT count(*) FROM pair WHERE outcome = '{KEPT}'")
        stages = {stage.stage: stage for stage in overview.progress(taken)}
        text = report.html(taken, audit.audit(run), light=True)
    file.unlink()
    assert stages["judge"].rows == 20
    assert stages["judge"].gpu_s == 3600
    assert "Kept, by dataset" in text
    assert "GPU-hours" in text
    assert "50%" in text  # of the time that it held its GPUs, the stage worked
