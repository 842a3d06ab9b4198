"""`crispedit status`, and what a build says while it runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from conftest import make_run
from test_scheduler import SCHEMA, Named

from crispedit.pipelines import build, cli, progress
from crispedit.pipelines.engine import Work
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.scheduling.cluster import Here
from crispedit.pipelines.scheduling.scheduler import Scheduler
from crispedit.shards.journal import Table


def test_a_run_tells_what_it_has(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (photos_and_text := tmp_path / "photos").mkdir()
    for path in photos.iterdir():
        (photos_and_text / path.name).write_bytes(path.read_bytes())
    (photos_and_text / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    run = make_run(tmp_path / "run", photos_and_text, "categories={style: 1}")
    build.build(run)
    capsys.readouterr()
    assert cli.main(["status", str(run.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["curate"]["rows"] == 5
    assert found["rows"]["curate"]["error"] + found["rows"]["curate"]["refused"] == 1
    assert found["rows"]["edit"] == {"rows": 4, "error": 0, "transient": 0, "refused": 0}
    assert found["driver"]["ended"]
    assert found["driver"]["committed"]["edit"] == 4
    assert all(0 < stage["share"] <= 1 for stage in found["stages"] if stage["busy_s"])
    assert found["gpu_seconds"] == 0
    assert cli.main(["status", str(run.root)]) == 0
    said = capsys.readouterr().out
    assert "No build is at work; the last one ended" in said
    assert "1 x curate: " in said
    assert said.partition("1 x curate: ")[2].splitlines()[0].endswith(": broken.jpg")
    assert cli.main(["audit", str(run.root), "--light"]) == 0
    audited = capsys.readouterr().out
    (line,) = [line for line in audited.splitlines() if line.startswith("edit:compositor ")]
    assert line in said
    assert line.split()[1] == "4"
    assert line.endswith("%")
    assert cli.main(["audit", str(run.root), "--light", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"] == found["stages"]
    assert cli.main(["status", str(photos)]) == 2


def test_a_build_gives_signs_of_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = [{"key": str(n)} for n in range(3)]
    work = Work("test", tmp_path, Table(SCHEMA), plan, [Named("a")], SCHEMA, lambda row: [row])
    flow = work
    told = progress.Progress(tmp_path, log_json=True)
    scheduler = Scheduler(flow, Here(flow.stages), EngineSpec(), told)
    told(scheduler)
    (session,) = progress.sessions(tmp_path)
    assert (session["ended"], session["committed"]) == (False, {})
    assert session["stages"]["a"]["remaining"] == 3
    scheduler.run()
    told.end(scheduler)
    (session,) = progress.sessions(tmp_path)
    assert (session["ended"], session["committed"]) == (True, {"test": 3})
    assert session["updated"] <= time.time()
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["committed"] == {"test": 3}


def test_durations_are_read_easily():
    assert [progress.duration(s) for s in (4, 100, 7300)] == ["4 s", "2 min", "2 h 2 min"]
