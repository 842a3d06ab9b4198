"""A whole build: photographs in, audited shards out; the same bytes on Ray and without it, and whatever was killed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import RECIPE, make_run

from crispedit.images import decode_jpeg, decode_mask
from crispedit.pipelines import audit, build, cli, tables
from crispedit.pipelines.run import Run
from crispedit.shards import journal

ROOT = Path(__file__).parents[2]


def shard_bytes(run: Run) -> dict[str, str]:
    """sha256 of everything the packed set consists of."""
    folder = run.folder("shards")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def statistics(run: Run) -> str:
    report = audit.audit(run)
    return json.dumps([vars(count) for count in report.counts])


def parts(run: Run) -> int:
    return sum(len(journal.parts(run.folder(step))) for step in ("curate", "annotate", "edit", "score"))


def test_every_category_is_there_and_most_candidates_are_kept(built: Run):
    lines = {c.category: c for c in audit.audit(built).counts if c.step == "select"}
    assert set(lines) == {"add", "remove", "replace", "color", "background", "style", "motion"}
    assert sum(c.kept for c in lines.values()) >= 0.6 * sum(c.rows for c in lines.values())


def test_plain_webdataset_reads_every_pair(built: Run):
    import webdataset

    manifest = json.loads((built.folder("shards") / "manifest.json").read_text())
    tars = [str(built.folder("shards") / shard["name"]) for shard in manifest["shards"]]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(samples) == manifest["pairs"] > 0
    for sample in samples:
        meta = json.loads(sample["json"])
        source, edited = decode_jpeg(sample["source.jpg"]), decode_jpeg(sample["edited.jpg"])
        assert source.shape == edited.shape == (meta["height"], meta["width"], 3)
        assert decode_mask(sample["mask.png"]).shape == source.shape[:2]
        assert meta["key"] == sample["__key__"]
        for text in ("instruction", "source_caption", "target_caption", "uri", "sha256", "recipe_fingerprint"):
            assert meta[text]
        assert {score["name"] for score in meta["scores"]} >= {"unchanged.changed_fraction"}


def test_hugging_face_datasets_reads_every_pair(built: Run, tmp_path: Path):
    from datasets import load_dataset

    manifest = json.loads((built.folder("shards") / "manifest.json").read_text())
    pairs = load_dataset(
        "webdataset", data_files=str(built.folder("shards") / "*.tar"), split="train", cache_dir=str(tmp_path)
    )
    assert len(pairs) == manifest["pairs"]
    assert all(pair["source.jpg"].size == pair["edited.jpg"].size for pair in pairs)


def test_the_card_has_front_matter_and_the_numbers(built: Run):
    text = (built.folder("shards") / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    pairs = json.loads((built.folder("shards") / "manifest.json").read_text())["pairs"]
    assert front["task_categories"] == ["image-to-image"]
    assert f"{pairs} image-editing pairs" in text
    assert "license" not in front  # unknown is not invented


def test_the_resolved_recipe_is_kept_with_what_made_it(built: Run):
    text = (built.root / "recipe.yaml").read_text()
    assert "#   packages:" in text
    assert "#     ray: " in text
    assert yaml.safe_load(text)["curate"]["jpeg_quality"] == 95


def test_a_second_build_does_nothing_and_changes_nothing(built: Run):
    before, count = shard_bytes(built), parts(built)
    times = {path: path.stat().st_mtime_ns for path in built.folder("shards").glob("*.tar")}
    build.build(built)
    assert shard_bytes(built) == before
    assert parts(built) == count
    assert {path: path.stat().st_mtime_ns for path in built.folder("shards").glob("*.tar")} == times


def test_waves_give_the_same_shards(built: Run, photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "engine.wave_sources=1")
    build.build(run)
    assert shard_bytes(run) == shard_bytes(built)
    assert statistics(run) == statistics(built)


KILLED_AGAIN_AND_AGAIN = """
import itertools, os, sys
import cv2, duckdb, pyarrow.parquet
from crispedit.pipelines import cli
root, *arguments = sys.argv[1:]
for limit in itertools.count(4, 9):
    pid = os.fork()
    if not pid:
        writes = itertools.count(1)
        def kill(event, args):
            written = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR) or event == "os.rename"
            if written and str(args[0]).startswith(root) and next(writes) == limit:
                os.kill(os.getpid(), 9)
        sys.addaudithook(kill)
        os._exit(cli.main(["build", *arguments, f"run={root}"]))
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        print((limit - 4) // 9)
        sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Builds in forks of one process, each killed (kill -9) at a later file that it writes or renames, until one finishes;
prints how many were killed."""


def test_killed_at_any_point_a_run_continues_to_the_same_bytes(photos: Path, tmp_path: Path):
    steered = ["engine.wave_sources=2", "categories={add: {jobs: 1, quota: 2}, remove: 1, style: 1}"]
    whole, run = make_run(tmp_path / "whole", photos, *steered), make_run(tmp_path / "run", photos, *steered)
    build.build(whole)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    given = [str(run.root), str(tmp_path / "recipe.yaml"), f"source.path={photos}", *steered]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, *given], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-1]) >= 5
    assert shard_bytes(run) == shard_bytes(whole)
    assert statistics(run) == statistics(whole)


def test_a_moved_bound_reruns_policy_only(photos: Path, tmp_path: Path, built: Run):
    run = make_run(tmp_path / "run", photos)
    build.build(run)
    count = parts(run)
    before = {c.category: c.kept for c in audit.audit(run).counts if c.step == "select"}
    strict = make_run(tmp_path / "run", photos, "filters.unchanged.bounds.changed_fraction.min=0.9")
    build.build(strict)
    after = {c.category: c.kept for c in audit.audit(strict).counts if c.step == "select"}
    assert parts(strict) == count
    assert sum(after.values()) < sum(before.values())
    manifest = json.loads((strict.folder("shards") / "manifest.json").read_text())
    assert manifest["pairs"] == sum(after.values())
    build.build(run)  # and back again
    assert shard_bytes(run) == shard_bytes(built)


def test_a_quota_is_met_exactly(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "categories={add: {jobs: 1, quota: 2}, style: 1}")
    build.build(run)
    counts = {c.category: c for c in audit.audit(run).counts if c.step == "select"}
    assert counts["add"].kept == 2
    assert counts["add"].rejected["quota"] == counts["add"].rows - 2


def test_a_later_wave_asks_no_more_of_a_category_that_is_full(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "categories={add: {jobs: 1, quota: 2}, style: 1}", "engine.wave_sources=2")
    build.build(run)
    counts = {c.category: c for c in audit.audit(run).counts if c.step == "annotate"}
    assert (counts["add"].rows, counts["style"].rows) == (2, 4)
    more = make_run(tmp_path / "run", photos, "categories={add: {jobs: 1, quota: 3}, style: 1}")
    build.build(more)  # a quota is policy: raised, what it held back is asked for
    assert {c.category: c.rows for c in audit.audit(more).counts if c.step == "annotate"} == {"add": 4, "style": 4}


def test_a_run_is_extended_by_more_jobs_and_photographs(photos: Path, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    first, second = sorted(photos.iterdir())[:2]
    (folder / first.name).write_bytes(first.read_bytes())
    build.build(make_run(tmp_path / "run", folder, "categories={add: 1}"))
    (folder / second.name).write_bytes(second.read_bytes())
    run = make_run(tmp_path / "run", folder, "categories={add: 2, style: 1}")
    build.build(run)
    whole = make_run(tmp_path / "whole", folder, "categories={add: 2, style: 1}")
    build.build(whole)
    assert shard_bytes(run) == shard_bytes(whole)


def test_a_change_of_measurements_is_refused_with_the_ways_out(photos: Path, tmp_path: Path):
    build.build(make_run(tmp_path / "run", photos, "categories={style: 1}"))
    changed = make_run(tmp_path / "run", photos, "categories={style: 1}", "curate.jpeg_quality=80")
    with pytest.raises(ValueError, match=r"curate\.jpeg_quality: was 95, is now 80") as error:
        build.build(changed)
    assert "run=DIR" in str(error.value)
    assert str(tmp_path / "run" / "curate") in str(error.value)


def test_two_drivers_do_not_share_a_run(built: Run):
    with built.locked(), pytest.raises(ValueError, match="another process is working in"):
        build.build(built)


def test_the_steps_one_by_one_are_a_build(built: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    for step in ("curate", "annotate", "edit", "score", "select", "pack"):
        assert cli.main(["step", step, str(recipe), f"run={tmp_path / 'run'}", f"source.path={photos}"]) == 0
    assert shard_bytes(make_run(tmp_path / "run", photos)) == shard_bytes(built)
    capsys.readouterr()
    assert cli.main(["audit", str(tmp_path / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"step", "category", "rows", "kept", "rejected", "error", "not_reached"} <= set(report["counts"][0])
    assert (tmp_path / "run" / "audit" / "report.html").exists()


def test_a_lost_row_fails_the_audit_loudly(photos: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", photos, "categories={add: 1, style: 1}")
    build.build(run)
    journal.parts(run.folder("edit"))[0].unlink()
    with pytest.raises(RuntimeError, match="conservation violated at select"):
        audit.audit(run)


def test_a_mistake_is_one_line_and_status_two(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert cli.main(["build", "configs/embedded.yaml", "source.path=/nowhere/at/all", f"run={tmp_path / 'r'}"]) == 2
    assert "error: " in capsys.readouterr().err
    assert cli.main(["audit", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_what_if_tells_what_moved_bounds_would_keep(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    strict = "filters.unchanged.bounds.changed_fraction.min=0.9"
    run = make_run(tmp_path / "run", photos, strict)
    build.build(run)
    count, root = parts(run), str(run.root)
    kept = sum(c.kept for c in audit.audit(run).counts if c.step == "select")
    loose = "filters.unchanged.bounds.changed_fraction.min=0.0005"
    dearest = list(run.recipe.pair_cascade.filters)[-1]
    measured = f'SELECT count(*) FROM score WHERE "{dearest}.measured"'
    (before,) = tables.connect(run).execute(measured).fetchall()[0]
    capsys.readouterr()
    assert cli.main(["select", root, loose, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "lack a score that these bounds ask for" in said
    missing = int(said.split("measures those ")[1].split()[0])
    assert parts(run) == count  # it only said so
    policy = "curate.filters.resolution.bounds.short_side_px.min=1"
    files = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    assert cli.main(["select", root, policy, "--dry-run"]) == 0
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == files
    capsys.readouterr()
    assert sum(c.kept for c in audit.audit(run).counts if c.step == "select") == kept
    assert cli.main(["step", "score", root, loose]) == 0
    assert missing > 0
    db = tables.connect(make_run(tmp_path / "run", photos, loose))
    (rows,) = db.execute(measured).fetchall()[0]
    assert rows == missing + before
    assert cli.main(["select", root, loose, "--dry-run"]) == 0
    assert "lack a score" not in capsys.readouterr().out
    assert cli.main(["select", root, loose]) == 0
    loosened = audit.audit(make_run(tmp_path / "run", photos, loose))
    assert sum(c.kept for c in loosened.counts if c.step == "select") > kept
    assert loosened.pairs == {}  # the shards are still of the selection before
