"""Semantic duplicates: planted among random vectors, and in a finished set."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from crispedit import semantic
from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import cli
from crispedit.pipelines.sharing import duplicates
from crispedit.record import content_key
from crispedit.shards.pack import Pair, finish, plan, write_shard

pytest.importorskip("faiss", reason="the semantic extra is not installed")


@pytest.mark.parametrize("exact", [True, False])
def test_planted_duplicates_are_found_and_nothing_else(exact: bool, monkeypatch: pytest.MonkeyPatch):
    if not exact:
        monkeypatch.setattr(semantic, "EXACT", 100)
    monkeypatch.setattr(semantic, "BLOCK", 256)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6000, 64))
    copies = rng.choice(np.arange(3000, 6000), 300, replace=False)
    originals = rng.choice(3000, 300, replace=False)
    vectors[copies] = vectors[originals] + rng.normal(size=(300, 64)) * 0.05
    vectors[5000] = vectors[4999]  # in one block
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    parents, cosines = semantic.repeats(vectors.astype(np.float16), 0.95)
    expected = np.full(6000, -1)
    expected[copies] = originals
    expected[5000] = expected[4999] if expected[4999] >= 0 else 4999
    missed = (parents < 0) & (expected >= 0)
    assert missed.sum() <= (0 if exact else 3)
    assert np.array_equal(parents[~missed], expected[~missed])
    assert (cosines[parents >= 0] >= 0.95).all()


def test_a_crowd_of_one_picture_keeps_one():
    vectors = np.tile(np.eye(1, 16, dtype=np.float32), (9000, 1))
    parents, _ = semantic.repeats(vectors, 0.99)
    assert parents[0] == -1
    assert set(parents[1:]) == {0}


def test_a_memory_map_whose_pages_are_released_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(semantic, "BLOCK", 16)
    monkeypatch.setattr(semantic, "RELEASED", 16)
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float16)
    vectors[100:] = vectors[:100]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors.tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float16, "r").reshape(200, 8)
    for ours, theirs in zip(semantic.repeats(mapped, 0.99), semantic.repeats(vectors, 0.99), strict=True):
        assert np.array_equal(ours, theirs)


def test_the_command_lists_pairs_of_repeated_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(duplicates, "AT_ONCE", 2)
    pictures = {"a": landscape(0, 160, 120, "meadow"), "b": landscape(1, 160, 120, "desert")}
    pictures["again"] = np.ascontiguousarray(pictures["a"][2:, 2:])
    pairs = {}
    for name, picture in pictures.items():
        key, jpeg = content_key(name), encode_jpeg(picture)
        pairs[key] = Pair(key, "style", jpeg, jpeg, None, {"source_key": name})
    shards = plan({"style": list(pairs)}, 4, 0, frozenset())
    entries = [write_shard(tmp_path / "set", shard, (pairs[key] for key in shard.keys), "d") for shard in shards]
    finish(tmp_path / "set", entries, {})
    out = tmp_path / "found.jsonl"
    assert cli.main(["duplicates", str(tmp_path / "set"), "--least", "0.99", "--output", str(out)]) == 0
    (found,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert {found["key"], found["duplicate_of"]} == {content_key("a"), content_key("again")}
    assert "1 of 3 pairs repeat an earlier source" in capsys.readouterr().out


def test_a_missing_package_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "faiss" else find(name, *rest))
    assert cli.main(["duplicates", str(tmp_path / "nowhere")]) == 2
    assert "faiss not installed: pip install 'crispedit[models,semantic]'" in capsys.readouterr().err
