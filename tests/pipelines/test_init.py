"""`crispedit init` and `crispedit filters`: the first things that a newcomer runs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from crispedit.pipelines import cli, init, recipe
from crispedit.pipelines.sources.pairs import PairsSource


def test_init_writes_a_recipe_for_photographs(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "my recipe.yaml"
    assert cli.main(["init", str(photos), "-o", str(output), "--run", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "4 photographs (folder)" in told
    assert f"crispedit build '{output}'" in told
    assert "takes images from 288 px on" in told  # with the usual bound, a build would keep none of them
    made = recipe.load(str(output))
    assert (made.source.kind, made.source.path, made.run) == ("folder", str(photos), tmp_path / "run")
    shipped = recipe.load("embedded")
    for spec in (made.filters["resolution"], made.curate.filters["resolution"]):
        assert spec.bounds["short_side_px"].min == 288
    same = {key: getattr(shipped, key) for key in ("source", "run", "curate", "filters")}
    assert made.model_copy(update=same) == shipped
    assert "# Jobs per photograph" in output.read_text()
    assert cli.main(["init", str(photos), "-o", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_init_recognises_pairs(photos: Path, tmp_path: Path):
    folder = tmp_path / "my pairs"
    folder.mkdir()
    for number, photograph in enumerate(sorted(photos.iterdir())):
        for end in ("source", "edited"):
            (folder / f"{number}_{end}.jpg").write_bytes(photograph.read_bytes())
        (folder / f"{number}.txt").write_text("add a red ball")
    seen, text = init.recipe_for(str(folder))
    assert "all 4 pairs" in seen
    assert "smaller than the usual 1024 px" in seen
    (tmp_path / "recipe.yaml").write_text(text)
    made = recipe.load(str(tmp_path / "recipe.yaml"))
    assert isinstance(made.source, PairsSource)
    assert made.source.layout == "folder"
    assert made.source.columns.complete
    assert made.run == Path("runs/my-pairs")
    least = {
        spec.bounds["short_side_px"].min for spec in (made.filters["resolution"], made.curate.filters["resolution"])
    }
    assert len(least) == 1
    assert least.pop() < 1024


def test_init_says_what_it_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "notes.txt").write_text("nothing to build from")
    assert cli.main(["init", str(tmp_path), "-o", str(tmp_path / "r.yaml")]) == 2
    said = capsys.readouterr().err
    assert "neither pairs nor photographs" in said
    assert not (tmp_path / "r.yaml").exists()


def test_filters_lists_every_filter_with_its_bounds(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["filters"]) == 0
    said = capsys.readouterr().out
    assert "\nunchanged (pairs): distinguishes an edit from a no-op" in said
    assert "crispedit[models]" in said
    assert cli.main(["filters", "unchanged", "clip", "--json"]) == 0
    unchanged, clip = json.loads(capsys.readouterr().out)
    assert unchanged["scores"]["largest_region_fraction"]["min"] > 0
    assert clip["extra"] == "models"
    assert cli.main(["filters", "unchangd"]) == 2
    assert "there is no filter 'unchangd'" in capsys.readouterr().err


def test_a_filter_names_an_extra_that_exists(capsys: pytest.CaptureFixture[str]):
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert cli.main(["filters", "--json"]) == 0
    extras = {one["filter"]: one["extra"] for one in json.loads(capsys.readouterr().out)}
    assert {extra for extra in extras.values() if extra} <= set(pyproject["project"]["optional-dependencies"])
    assert (extras["nsfw"], extras["clip"], extras["unchanged"]) == ("nsfw", "models", None)
