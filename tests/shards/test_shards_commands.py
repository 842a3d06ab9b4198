"""The shard commands as a user calls them: their words, their exit status, and what they print."""

import json
from pathlib import Path

import pytest
from PIL import Image
from shard_pairs import make_pair, write_pairs

from crispedit.pipelines.cli import main
from crispedit.shards.read import read_shards

PAIRS = [make_pair(str(i), ("add", "style")[i % 2]) for i in range(6)]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "set", PAIRS, 4)
    return tmp_path / "set"


def test_verify_says_whole_and_then_what_is_wrong(folder: Path, capsys):
    assert call("verify", folder, "--deep") == 0
    assert capsys.readouterr().out.endswith("OK\n")
    (folder / "crispedit-add-000000.tar").unlink()
    assert call("verify", folder) == 1
    assert "crispedit-add-000000.tar: missing_shard" in capsys.readouterr().out
    assert call("verify", folder, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["counts"]["missing_shard"] == 1


def test_inspect_makes_a_sheet_and_tells_about_a_key(folder: Path, tmp_path: Path, capsys):
    sheet = tmp_path / "sheet.png"
    assert call("inspect", folder, "--output", sheet, "--pairs", 3) == 0
    assert Image.open(sheet).size[0] > 1000
    capsys.readouterr()
    assert call("inspect", folder, PAIRS[0].key, "--output", sheet) == 0
    text = capsys.readouterr().out
    told = json.loads(text[: text.rindex("}") + 1])
    assert told["instruction"] == PAIRS[0].meta["instruction"]
    place = told["place"]["members"]["source.jpg"]
    data = (folder / told["place"]["shard"]).read_bytes()
    assert data[place["offset"] : place["offset"] + place["bytes"]] == PAIRS[0].source_jpeg
    assert call("inspect", folder, "0" * 32) == 2
    assert "no pair's key is or begins with" in capsys.readouterr().err


def test_export_and_merge(folder: Path, tmp_path: Path, capsys):
    assert call("export", folder, "--to", "released", "--output", tmp_path / "released") == 0
    assert len(list((tmp_path / "released" / "data").iterdir())) == 2
    assert call("merge", tmp_path / "new", folder, "--quota", "add=1", "--pairs-per-shard", 2) == 0
    assert "4 of 6 pairs in 3 shards" in capsys.readouterr().out
    assert len(list(read_shards(tmp_path / "new"))) == 4
    assert call("merge", tmp_path / "other", folder, "--quota", "add") == 2
    assert "CATEGORY=N" in capsys.readouterr().err
    assert call("reshard", tmp_path / "again", tmp_path / "new", "--pairs-per-shard", 4) == 0
    assert {p.key for p in read_shards(tmp_path / "again")} == {p.key for p in read_shards(tmp_path / "new")}
