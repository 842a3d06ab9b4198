"""A build over inputs of every kind: what is no row is told, and object stores take its shards."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import make_run

from crispedit.pipelines import audit
from crispedit.pipelines.build import build
from crispedit.pipelines.run import Run


def of(run: Run) -> str:
    return re.search(r"^photographs: .*$", audit.summary(audit.audit(run)), re.MULTILINE)[0]


def test_what_is_left_out_is_told_and_new_files_are_taken_in(photos: Path, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos / "lake.jpg", folder / "lake")
    (folder / "notes.txt").write_text("hello")
    (folder / "noise.dat").write_bytes(bytes(100))
    build(made := make_run(tmp_path / "run", folder, "categories={add: 1}"))
    assert of(made) == "photographs: 1 in, 1 kept; skipped: 2 files (1 .dat, 1 .txt)"
    shutil.copy(photos / "desert.jpg", folder / "desert.jpg_large")
    (folder / "more.txt").write_text("hello")
    build(made := make_run(tmp_path / "run", folder, "categories={add: 1}"))
    assert of(made) == "photographs: 2 in, 2 kept; skipped: 3 files (2 .txt, 1 .dat)"


def test_shards_go_where_the_recipe_says_and_a_run_may_not(photos: Path, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos / "lake.jpg", folder)
    made = make_run(tmp_path / "run", folder, f"pack.to={tmp_path / 'elsewhere'}")
    build(made)
    assert (tmp_path / "elsewhere" / "manifest.json").exists()
    assert not (tmp_path / "run" / "shards").exists()
    build(make_run(tmp_path / "run", folder, f"pack.to={tmp_path / 'elsewhere'}", "pack.seed=1"))
    before = (tmp_path / "elsewhere" / "manifest.json").read_bytes()
    other = make_run(tmp_path / "second", photos, f"pack.to={tmp_path / 'elsewhere'}", "categories={style: 1}")
    with pytest.raises(ValueError, match=r"^pack\.to: .* holds 6 pairs that are not of this run"):
        build(other)
    assert (tmp_path / "elsewhere" / "manifest.json").read_bytes() == before
    assert audit.audit(made).pairs
    with pytest.raises(ValueError, match=r"^run: a run cannot be in an object store yet"):
        make_run(Path("s3://bucket/run"), folder)
    with pytest.raises(ValueError, match=r"^pack.to holds a "):
        make_run(tmp_path / "other", folder, "pack.to=s3://me:hunter2@bucket/set")
