"""Everything that CONTRIBUTING.md shows is complete: its files are saved, built with, measured and run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_contracts as contracts
from documents import ROOT, blocks
from PIL import Image as Pillow

from crispedit import annotators, editors, filters, parts
from crispedit.parts import Annotator, Editor, Filter
from crispedit.pipelines import audit, cli, recipe
from crispedit.pipelines.run import Run

DOCUMENT = "CONTRIBUTING.md"


def files() -> dict[str, str]:
    """What the document shows, by the file that its first line names."""
    shown = [block for language in ("python", "yaml") for block in blocks(DOCUMENT, language)]
    assert all(block.startswith("# ") for block in shown)
    return {block.partition("\n")[0].removeprefix("# "): block for block in shown}


def commands() -> list[list[str]]:
    """The command lines of crispedit that the document shows, without what stands before the name."""
    lines = [line for block in blocks(DOCUMENT, "sh") for line in block.splitlines()]
    return [line.partition("crispedit ")[2].split() for line in lines]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with the files of the document, which is the working folder and is on the path."""
    for name, text in files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "my_package" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_a_recipe_builds_with_parts_and_a_category_from_outside(mine: Path, photos: Path):
    (mine / "photos").symlink_to(photos)
    build, _ = commands()
    assert cli.main(build) == 0
    report = audit.audit(Run(recipe.load(build[1], build[2:])))
    (relit,) = [count for count in report.counts if count.step == "select" and count.rows]
    assert (relit.category, relit.rows, relit.kept) == ("relight", 4, 4)
    assert any(histogram.score == "halo.rim_levels" for histogram in report.histograms)


def test_a_benchmark_from_outside_scores_the_controls(mine: Path, capsys: pytest.CaptureFixture[str]):
    (mine / "cases").mkdir()
    (mine / "cases" / "cases.json").write_text(json.dumps([{"id": "1", "instruction": "make it darker"}]))
    for name, level in (("source", 200), ("target", 100)):
        image = np.full((32, 48, 3), level, np.uint8)
        Pillow.fromarray(image).save(mine / "cases" / f"1-{name}.png")
    _, command = commands()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "copy-source" in said
    assert "0.392" in said  # 100 of 255 levels


def test_the_test_of_the_filter_passes(mine: Path):
    spec = importlib.util.spec_from_file_location("test_halo", mine / "tests" / "filters" / "test_halo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.test_a_bright_rim_is_a_halo_and_the_edit_itself_is_none()


@pytest.mark.parametrize(
    ("package", "name", "kind"),
    [(filters, "halo", Filter), (annotators, "hours", Annotator), (editors, "tint", Editor)],
)
def test_inside_the_checkout_a_part_is_named_by_its_file(
    package, name, kind, mine: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(mine / "my_package")])
    try:
        made = parts.make(package, name, kind, {})
        contracts.test_a_part_says_what_it_is_and_forbids_unknown_options(type(made))
        contracts.test_a_part_pickles_and_has_a_stable_identity(type(made))
        if kind is Filter:
            samples = {"pair": contracts.pairs()[:3]}
            contracts.test_a_filter_answers_each_sample_alike_alone_in_a_batch_and_reversed(type(made), samples)
    finally:
        sys.modules.pop(f"{package.__name__}.{name}", None)


def test_the_benchmark_of_speed_prints_a_ratio(mine: Path):
    command = [sys.executable, str(mine / "benchmarks" / "dilation.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert "ratio" in done.stdout


def test_a_category_that_the_annotator_cannot_plan_is_refused(mine: Path):
    with pytest.raises(ValueError, match=r"categories\.relight: the annotator 'compositor' cannot plan"):
        recipe.load("my_package/recipe.yaml", ["annotate.annotator=compositor"])


def test_the_chat_annotator_knows_the_categories_of_a_recipe(mine: Path):
    model = "{backend: openai, model: m, base_url: 'http://127.0.0.1:9/v1'}"
    own = recipe.load("my_package/recipe.yaml", ["annotate.annotator=chat", f"annotate.chat={model}"])
    (category,) = own.annotator.own_categories
    assert category.name == "relight"
    assert "relight" in own.annotator.identity()["categories"]


def test_the_places_that_the_document_names_exist():
    text = (ROOT / DOCUMENT).read_text()
    for folder in ("filters", "configs/categories", "crispedit/annotators", "crispedit/editors"):
        assert f"`{folder}/" in text
        assert (ROOT / folder).is_dir()
