"""What commands write into an object store that fails now and then: a real S3 server behind a proxy."""

from __future__ import annotations

from pathlib import Path

import object_store
import pytest
from conftest import make_run
from object_store import faulty
from training_pairs import recipe_file, write_set

from crispedit.pipelines import cli
from crispedit.pipelines.build import build
from crispedit.shards import index, layout, storage


def now_and_then(number: int, method: str, path: str) -> str | None:
    kind = ("503", "reset", "cut")[number // 9 % 3]
    return kind if number % 9 == 8 and (kind != "cut" or method == "GET") else None


def in_store(place: str) -> dict[str, bytes]:
    system, inner = storage.filesystem(place)
    system.invalidate_cache()
    return {name.removeprefix(inner + "/"): system.cat_file(name) for name in system.find(inner)}


def in_folder(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_build_packs_into_a_store(s3_server: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "MAPPED_PAIRS", 1)  # with the index that readers of a large set map
    few = ("categories={color: 1, style: 1}", "pack.pairs_per_shard=2")
    build(make_run(tmp_path / "here", photos, *few))
    place = f"{object_store.bucket(monkeypatch, s3_server)}/packed"
    with faulty(s3_server, monkeypatch, now_and_then) as proxy:
        build(made := make_run(tmp_path / "there", photos, *few, f"pack.to={place}"))
        assert proxy.faults
        build(made)  # resumes, with every shard there
    assert not (tmp_path / "there" / "shards").exists()
    found = in_store(place)
    assert layout.MAPPED_INDEX in found
    card = "README.md"  # names its own place
    local = in_folder(tmp_path / "here" / "shards")
    assert {name: data for name, data in found.items() if name != card} == {
        name: data for name, data in local.items() if name != card
    }


def test_merge_export_and_tokenize_write_into_a_store(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shards = write_set(tmp_path / "set")
    recipe = str(recipe_file(tmp_path, shards))
    commands = {
        "merged": ["merge", "OUT", str(shards)],
        "exported": ["export", str(shards), "--to", "folder", "--output", "OUT"],
        "tokenised": ["tokenize", str(shards), "OUT", "--recipe", recipe],
    }
    bucket = object_store.bucket(monkeypatch, s3_server)
    for name, command in commands.items():
        assert cli.main([word.replace("OUT", str(tmp_path / name)) for word in command]) == 0
        place = f"{bucket}/{name}"
        with faulty(s3_server, monkeypatch, now_and_then) as proxy:
            assert cli.main([word.replace("OUT", place) for word in command]) == 0
            assert proxy.faults
        assert in_store(place) == in_folder(tmp_path / name), name
