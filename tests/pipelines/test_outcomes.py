"""Outcomes: what passes is tried again, what fails says so, and damage to the run's own tables is no row's result."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from chat_server import Asked, Said, Server, serving
from conftest import RECIPE, lose_rows, make_run
from test_build import shard_bytes, statistics

from crispedit.outcome import Damaged, Failing
from crispedit.pipelines import audit, build, cli, recipe, tables
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.run import Run
from crispedit.shards import journal


def answer(asked: Asked) -> str:
    """The least that fits the schema that is asked for, and "yes" wherever that is a choice."""
    schema = asked.body["response_format"]["json_schema"]["schema"]

    def make(of: dict[str, Any]) -> Any:
        if "$ref" in of:
            return make(schema["$defs"][of["$ref"].rpartition("/")[2]])
        if "enum" in of:
            return "yes" if "yes" in of["enum"] else of["enum"][0]
        kinds = {"array": [], "boolean": True, "integer": 1, "number": 1}
        if of.get("type") == "object":
            return {name: make(one) for name, one in of["properties"].items()}
        return kinds.get(of.get("type", ""), "make the sky pink")

    return json.dumps(make(schema))


class Outage:
    """A server that answers 503 while it is down, but for its first question."""

    def __init__(self) -> None:
        self.down = False

    def __call__(self, asked: Asked) -> Said | str:
        if asked.is_hello:
            return '{"ready": true}'
        return Said(status=503, body="{}") if self.down else answer(asked)


@pytest.fixture
def outage() -> Iterator[tuple[Outage, Server]]:
    reply = Outage()
    with serving(reply) as server:
        yield reply, server


def chatting(root: Path, photos: Path, server: Server, *overrides: str) -> Run:
    chat = json.dumps({**server.spec, "retries": 0})
    annotator = f"annotate={{annotator: chat, chat: {chat}}}"
    return make_run(root, photos, annotator, "categories={add: 1, color: 1}", "engine.attempts=1", *overrides)


def annotated(run: Run) -> list[dict[str, Any]]:
    rows = tables.connect(run).sql("SELECT * FROM annotate ORDER BY key").to_arrow_table().to_pylist()
    return [{name: value for name, value in row.items() if name != "plan"} for row in rows]


def test_rows_that_a_server_failed_are_tried_again_by_the_same_command(
    outage: tuple[Outage, Server], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    reply, server = outage
    whole = chatting(tmp_path / "whole", photos, server)
    build.step(whole, "curate")
    build.step(whole, "annotate")
    reply.down = True
    run = chatting(tmp_path / "run", photos, server)
    run.root.mkdir()
    (run.root / "recipe.yaml").write_text(yaml.safe_dump(run.recipe.model_dump(mode="json")))
    assert cli.main(["step", "curate", str(run.root)]) == 0
    assert cli.main(["step", "annotate", str(run.root)]) == 1
    said = capsys.readouterr()
    assert "every row of annotate failed" in said.err
    assert "8 x annotate: " in said.out
    assert "503" in said.out
    assert all(row["transient"] for row in annotated(run))
    assert cli.main(["build", str(run.root)]) == 1  # still down
    assert "nothing was kept" in capsys.readouterr().err
    reply.down = False
    assert cli.main(["step", "annotate", str(run.root)]) == 0
    assert annotated(run) == annotated(whole)
    assert not any(row["error"] for row in annotated(run))
    server.asked.clear()
    cli.main(["step", "annotate", str(run.root)])
    assert [asked for asked in server.asked if not asked.is_hello] == []


def test_a_step_that_fails_and_fails_stops_the_build(outage: tuple[Outage, Server], photos: Path, tmp_path: Path):
    reply, server = outage
    reply.down = True
    run = chatting(tmp_path / "run", photos, server, "engine.stop_at_failures=4", "engine.rows_per_part=1")
    with pytest.raises(Failing, match=r"stopped: 4 of the last 4 rows of annotate failed .*503") as error:
        build.build(run)
    assert "run the same command again" in str(error.value)
    assert len(annotated(run)) < 8
    patient = chatting(tmp_path / "run", photos, server, "engine.stop_at_failures=null")
    build.build(patient)
    assert len(annotated(patient)) == 8


def test_permanent_errors_are_made_again_when_that_is_asked_for(photos: Path, tmp_path: Path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    broken = folder / "meadow.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 3])
    run = make_run(tmp_path / "run", folder, "categories={style: 1}")
    build.build(run)
    (line,) = (count for count in audit.audit(run).counts if count.step == "curate")
    assert line.error == {"unreadable": 1}
    (failure,) = audit.audit(run).errors
    assert (failure.step, failure.rows, failure.transient) == ("curate", 1, False)
    assert "errors:\n  1 x curate: " in audit.summary(audit.audit(run))
    broken.write_bytes(whole)
    build.build(run)
    assert len(audit.audit(run).errors) == 1
    build.build(run, retry_errors=True)
    assert audit.audit(run).errors == []
    again = make_run(tmp_path / "again", folder, "categories={style: 1}")
    build.build(again)
    assert shard_bytes(run) == shard_bytes(again)


def test_a_file_that_is_away_for_a_while_is_read_when_it_is_back(photos: Path, tmp_path: Path):
    """It is listed, and gone when it is to be read."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    run = make_run(tmp_path / "run", folder, "categories={style: 1}", "engine.wave_sources=1", "engine.attempts=1")
    build.step(run, "curate")
    lose_rows(run.folder("curate"), lambda row: row["uri"] == "meadow.jpg")
    (folder / "meadow.jpg").rename(tmp_path / "away.jpg")
    build.build(run)
    (failure,) = audit.audit(run).errors
    assert failure.transient
    assert Waves(run)[2].finished.transient == 1
    (tmp_path / "away.jpg").rename(folder / "meadow.jpg")
    build.build(run)
    whole = make_run(tmp_path / "whole", folder, "categories={style: 1}")
    build.build(whole)
    assert shard_bytes(run) == shard_bytes(whole)
    assert statistics(run) == statistics(whole)


def test_damage_to_a_runs_tables_stops_it_and_says_what_to_do(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "categories={style: 1}")
    build.build(run)
    whole = shard_bytes(run)
    for table, suffix in (("edit", ".parquet"), ("curate", ".tar"), ("score", ".parquet")):
        shutil.rmtree(run.folder("shards"))
        (part,) = journal.parts(run.folder(table))
        damaged = part.with_suffix(suffix)
        damaged.write_bytes(damaged.read_bytes()[:100])
        with pytest.raises(Damaged, match=rf"{damaged}.*same command makes") as error:
            build.build(run)
        assert "emove " in str(error.value)
        part.unlink()
        part.with_suffix(".tar").unlink(missing_ok=True)
        build.build(run)
        assert shard_bytes(run) == whole


def test_a_run_can_be_moved_and_copied(photos: Path, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    first, second = tmp_path / "first", tmp_path / "second"
    small = ["categories={style: 1}", f"source.path={photos}"]
    assert cli.main(["build", str(tmp_path / "recipe.yaml"), f"run={first}", *small]) == 0
    assert str(first) not in (first / "recipe.yaml").read_text()
    shutil.copytree(first, second)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    strict = "filters.unchanged.bounds.changed_fraction.min=0.5"
    assert cli.main(["build", str(second), strict]) in (0, 1)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert Run(recipe.load(str(second))).root == second
    shutil.rmtree(first)
    assert cli.main(["build", str(second), "filters.unchanged.bounds.changed_fraction.min=0.0005"]) == 0


def test_another_source_is_listed_anew_once_the_named_folders_are_gone(photos: Path, tmp_path: Path):
    small = ["categories={style: 1}", "filters={}", "curate.filters={}"]
    build.build(make_run(tmp_path / "my run", photos, *small))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one.jpg").write_bytes((photos / "lake.jpg").read_bytes())
    run = make_run(tmp_path / "my run", tmp_path / "other", *small)
    with pytest.raises(ValueError, match=r"curate was made.*\n  source.path: was .*, is now") as refused:
        build.build(run)
    for name in ("curate", "annotate", "edit", "score"):
        shutil.rmtree(run.folder(name))
    with pytest.raises(ValueError, match=r"listing was made.*\n  source.path: was"):
        build.build(run)
    for folder in shlex.split(str(refused.value).rpartition("again: ")[2]):
        shutil.rmtree(folder, ignore_errors=True)
    build.build(run)
    assert tables.connect(run).execute("SELECT uri FROM curate").fetchall() == [("one.jpg",)]


def test_an_older_run_is_refused_with_the_way_out(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos)
    run.folder("curate").mkdir(parents=True)
    pq.write_table(journal.pa.table({"uri": ["a.jpg"]}), run.folder("curate") / "part-0.parquet")
    with pytest.raises(ValueError, match=r"built by an earlier CrispEdit.*run=DIR"):
        build.build(run)


def test_where_nothing_is_kept_the_build_fails_with_the_reason(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    small = [f"run={tmp_path / 'run'}", "categories={style: 1}", f"source.path={photos}"]
    nothing = "filters.unchanged.bounds.changed_fraction.min=2"
    assert cli.main(["build", str(tmp_path / "recipe.yaml"), *small, nothing]) == 1
    assert "nothing was kept: 4 x unchanged.changed_fraction:low" in capsys.readouterr().err
