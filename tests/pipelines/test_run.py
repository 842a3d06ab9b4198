"""A run's directory: what a resumed build refuses to mix, and where it may be resumed from."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from conftest import RECIPE, make_run

from crispedit.pipelines import build, cli, recipe, tables
from crispedit.pipelines.run import Run

SMALL = ("categories={style: 1}", "filters={sharpness: {bounds: {}}}", "curate.filters={}")


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("built") / "run", photos, *SMALL)
    build.build(run)
    return run


@pytest.mark.parametrize(
    ("override", "change", "first"),
    [
        ("curate.max_short_side_px=200", "curate.max_short_side_px: was 1024, is now 200", "curate"),
        ("source.dataset=mine", "source.dataset: was None, is now 'mine'", "listing"),
        ("edit.jpeg_quality=90", "edit.jpeg_quality: was 95, is now 90", "edit"),
        ("filters.sharpness.least_blocks=8", "filters.sharpness.least_blocks: was 12, is now 8", "score"),
    ],
)
def test_only_what_depends_on_a_change_is_to_be_removed(
    built: Run, photos: Path, tmp_path: Path, override: str, change: str, first: str
):
    run = make_run(tmp_path / "run", photos, *SMALL, override)
    shutil.copytree(built.root, run.root)
    with pytest.raises(ValueError, match="was made with other settings") as refused:
        build.build(run)
    assert f"\n  {change}" in str(refused.value)
    removed = [Path(folder).name for folder in shlex.split(str(refused.value).rpartition("again: ")[2])]
    order = ["listing", "waves", "curate", "annotate", "edit", "score", "select"]
    assert removed == order[order.index(first) :]
    for name in removed:
        shutil.rmtree(run.folder(name))
    build.build(run)
    assert tables.connect(run).execute("SELECT count(*) FROM score").fetchall() == [(4,)]


def test_a_relative_source_is_the_one_of_the_directory_where_the_run_was_begun(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    shutil.copytree(photos, project / "photos")
    shutil.copytree(photos, elsewhere / "photos")
    (project / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(project)
    assert cli.main(["build", "recipe.yaml", "run=runs/mine", *SMALL]) == 0
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert cli.main(["build", str(project / "runs/mine")]) == 2
    refused = f"source.path: photos is relative to {project}, where this run was begun: start again there"
    assert refused in capsys.readouterr().err
    assert cli.main(["audit", str(project / "runs/mine"), "--light"]) == 0
    assert cli.main(["select", str(project / "runs/mine")]) == 0
    monkeypatch.chdir(project)
    assert cli.main(["build", "runs/mine"]) == 0
    project = project.rename(tmp_path / "moved")  # the run with its photographs
    monkeypatch.chdir(project)
    assert cli.main(["build", "runs/mine"]) == 0


def test_a_run_without_a_recipe_is_told_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match=r"is not a run: it has no recipe\.yaml"):
        recipe.load(str(tmp_path))
    (tmp_path / ".lock").touch()  # what a build makes first
    assert cli.main(["status", str(tmp_path)]) == 2
    assert "has no recipe.yaml yet: its build is just starting, or was stopped before" in capsys.readouterr().err
