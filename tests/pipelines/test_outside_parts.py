"""Parts and categories from outside the checkout: named by module or path, built like those that ship."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crispedit.pipelines import recipe
from crispedit.recipe import parse

FILTER = '''"""Halo: an example."""
from collections.abc import Mapping, Sequence
from typing import ClassVar

from crispedit.parts import Filter


class Halo(Filter):
    """`width_px`: how wide."""

    scores: ClassVar[Mapping[str, type]] = {"width_px": float}
    cost: ClassVar[float] = 1.0

    most: int = 3

    def measure(self, samples: Sequence) -> list:
        return [{"width_px": float(self.most)} for _ in samples]
'''

CATEGORY = """
name: relight
definition: The light of the scene changes.
prompt: Ask for another light.
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "__init__.py").touch()
    (tmp_path / "their_package" / "halo.py").write_text(FILTER)
    (tmp_path / "relight.yaml").write_text(CATEGORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [name for name in sys.modules if name.partition(".")[0] == "their_package"]:
        monkeypatch.delitem(sys.modules, module)
    return tmp_path


def load(text: str) -> recipe.Recipe:
    return parse(recipe.Recipe, "run: r\nsource: {kind: folder, path: p}\n" + text).check()


def test_a_filter_of_another_package_is_named_by_its_module(outside: Path):
    made = load("categories: {add: 1}\nfilters: {halo: {filter: their_package.halo, most: 5}}")
    assert made.pair_cascade.filters["halo"].identity()["options"] == {"most": 5}
    assert "halo.width_px" in [field.name for field in made.pair_cascade.columns]


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("    cost: ClassVar[float] = 1.0\n", "", "must define 'cost', the milliseconds"),
        ('    scores: ClassVar[Mapping[str, type]] = {"width_px": float}\n', "", "must define 'scores', such as"),
        ("def measure(", "def measures(", r"must define measure_one\(sample\) or measure\(samples\)"),
        ("most: int = 3", "bounds: ClassVar[Mapping] = {'size': None}", "scores for its bounds on size"),
        ("most: int = 3", "most: int = (3", "SyntaxError: '\\(' was never closed"),
        ("most: int = 3", "most: int = 1 // 0", "ZeroDivisionError"),
    ],
)
def test_a_filter_that_is_not_finished_is_refused_by_name(outside: Path, line: str, instead: str, message: str):
    assert line in FILTER
    (outside / "their_package" / "bare.py").write_text(FILTER.replace(line, instead))
    with pytest.raises(ValueError, match=rf"filter 'their_package.bare'.*{message}"):
        load("categories: {add: 1}\nfilters: {halo: {filter: their_package.bare}}")


def test_a_module_that_cannot_be_imported_says_so(outside: Path):
    with pytest.raises(ValueError, match=r"filter 'their_package.glow' cannot be imported.*PYTHONPATH"):
        load("categories: {add: 1}\nfilters: {halo: {filter: their_package.glow}}")


def test_a_category_is_named_by_its_file(outside: Path):
    chat = "annotate: {annotator: chat, chat: {backend: openai, model: m, base_url: 'http://127.0.0.1:9/v1'}}\n"
    made = load(f"{chat}categories: {{relight: {{jobs: 1, file: {outside / 'relight.yaml'}}}}}")
    assert made.category_files["relight"].definition.startswith("The light")
    with pytest.raises(ValueError, match="there is no category file at"):
        _ = load(f"categories: {{relight: {{file: {outside / 'dark.yaml'}}}}}")
