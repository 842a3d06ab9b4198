"""Exports, read back by the tools they are for."""

import csv
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Image, load_dataset
from shard_pairs import make_pair, write_pairs

from crispedit import inverse
from crispedit.shards import layout
from crispedit.shards.export import RELEASED_ROWS_PER_FILE, TARGETS, export
from crispedit.shards.pack import Pair, document
from crispedit.shards.remote import Cache

PAIRS = [make_pair(str(i), ("add", "background", "motion")[i % 3], i % 2 == 0) for i in range(9)]
BY_KEY = {pair.key: pair for pair in PAIRS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_pairs(folder, PAIRS, 4)
    return folder


def test_parquet_holds_every_byte(folder: Path, tmp_path: Path):
    assert export(folder, "parquet", tmp_path / "out", Cache()) == len(PAIRS)
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert {row["key"] for row in rows} == BY_KEY.keys()
    for row in rows:
        pair = BY_KEY[row["key"]]
        assert (row["source"]["bytes"], row["edited"]["bytes"]) == (pair.source_jpeg, pair.edited_jpeg)
        assert (row["mask"] and row["mask"]["bytes"]) == pair.mask_png
        assert row["meta"] == document(pair)
        assert (row["width"], row["height"], row["source_caption"]) == (96, 64, None)
        assert row["scores"][0] == {"name": "alignment_px", "value": 0.0}


@pytest.mark.filterwarnings("ignore")  # of datasets' own dependencies
def test_hugging_face_knows_the_images(folder: Path, tmp_path: Path):
    export(folder, "hf", tmp_path / "out", Cache())
    data = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert {name for name, feature in data.features.items() if isinstance(feature, Image)} == {
        "source",
        "edited",
        "mask",
    }
    assert set(data["key"]) == BY_KEY.keys()
    for row in data:
        assert row["source"].size == (96, 64)
        assert (row["mask"] is None) == (BY_KEY[row["key"]].mask_png is None)


def test_folder_holds_files_and_their_metadata(folder: Path, tmp_path: Path):
    export(folder, "folder", tmp_path / "out", Cache(), categories=["add", "motion"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    for line in lines:
        pair = BY_KEY[Path(line["source_file_name"]).name.split(".")[0]]
        assert (tmp_path / "out" / line["source_file_name"]).read_bytes() == pair.source_jpeg
        assert (tmp_path / "out" / line["edited_file_name"]).read_bytes() == pair.edited_jpeg
        if pair.mask_png is None:
            assert line["mask_file_name"] is None
        else:
            assert (tmp_path / "out" / line["mask_file_name"]).read_bytes() == pair.mask_png
        assert line["instruction"] == pair.meta["instruction"]


def test_trainers_find_a_control_a_target_and_a_caption(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    export(folder, "trainers", out, Cache())
    rows = list(csv.DictReader((out / "metadata.csv").open(encoding="utf-8")))
    assert {row["key"] for row in rows} == BY_KEY.keys()
    for row in rows:
        pair = BY_KEY[row["key"]]
        assert (out / row["edit_image"]).read_bytes() == pair.source_jpeg
        assert (out / row["image"]).read_bytes() == pair.edited_jpeg
        assert row["prompt"] == pair.meta["instruction"]
        # ai-toolkit: the caption lies beside the target, and the control image has the target's name
        assert (out / "target" / f"{pair.key}.txt").read_text() == pair.meta["instruction"]
        assert (out / "control" / Path(row["image"]).name).exists()


@pytest.mark.parametrize("layout_", TARGETS)
def test_inverse_pairs_follow_theirs_and_say_so(tmp_path: Path, layout_: str):
    captions = {"source_caption": "a lawn", "target_caption": "a ball on a lawn", "transform": "[]"}
    pairs = [
        replace(pair, meta={**pair.meta, **captions, "instruction": words})
        for pair, words in zip(PAIRS[:3], ("Add a ball.", "Fill the sky.", "Jump."), strict=True)
    ]
    write_pairs(tmp_path / "set", pairs, 4)
    assert export(tmp_path / "set", layout_, tmp_path / "out", Cache(), invert=inverse.by_rule) == 4
    _, body = front_and_body(tmp_path / "out")
    assert "| add | 1 |" in body
    assert "| remove | 1 |" in body
    if layout_ in ("parquet", "hf"):
        rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
        (one,) = (row for row in rows if row["inverse_of"])
        assert (one["inverse_of"], one["inverse_by"]) == (pairs[0].key, "rule")
        assert one["instruction"] == "Remove the ball."
        assert (one["source"]["bytes"], one["edited"]["bytes"]) == (pairs[0].edited_jpeg, pairs[0].source_jpeg)
        assert (one["source_caption"], one["target_caption"]) == ("a ball on a lawn", "a lawn")
        assert {score["value"] for score in one["scores"]} == {None}
        assert json.loads(one["meta"])["transform"] == ""
        assert len({row["key"] for row in rows}) == 4


def test_released_layout(folder: Path, tmp_path: Path):
    export(folder, "released", tmp_path / "out", Cache())
    files = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert files == ["add_00000.parquet", "background change_00000.parquet", "motion change_00000.parquet"]
    rows = [row for name in files for row in pq.read_table(tmp_path / "out" / "data" / name).to_pylist()]
    assert list(rows[0]) == ["input_img", "instruction", "output_img", "type"]
    assert {(row["input_img"]["bytes"], row["output_img"]["bytes"], row["instruction"]) for row in rows} == {
        (pair.source_jpeg, pair.edited_jpeg, pair.meta["instruction"]) for pair in PAIRS
    }
    assert {row["type"] for row in rows} == {"add", "background change", "motion change"}
    assert rows[0]["input_img"]["path"] is None


def test_released_files_hold_at_most_256_rows(tmp_path: Path):
    small = make_pair("small", width=8, height=8)
    pairs = [Pair(f"{i:032x}", "add", small.source_jpeg, small.edited_jpeg, None, small.meta) for i in range(600)]
    write_pairs(tmp_path / "set", pairs, 100)
    export(tmp_path / "set", "released", tmp_path / "out", Cache())
    counts = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out" / "data").iterdir())]
    assert counts == [RELEASED_ROWS_PER_FILE, RELEASED_ROWS_PER_FILE, 88]


def test_an_export_overwrites_nothing_and_leaves_no_half(folder: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not an empty folder"):
        export(folder, "folder", tmp_path / "out", Cache())
    write_pairs(tmp_path / "set", PAIRS[:3], 4)
    (tmp_path / "set" / "crispedit-add-000000.tar").unlink()
    with pytest.raises(ValueError, match="missing_shard"):
        export(tmp_path / "set", "parquet", tmp_path / "half", Cache())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]
    assert layout.MANIFEST in {path.name for path in (tmp_path / "set").iterdir()}


CARD = """---
license: cc0-1.0
language: [en]
tags: [landscapes]
---
# Landscapes

Taken by the author.

```python
# a comment
```
"""
KNOWN = {"dataset": "landscapes", "licence": "cc0-1.0", "uri": "a/1.jpg", "source_key": "5", "editor": "test"}


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """A set whose pairs say where they come from, with a card."""
    folder = tmp_path_factory.mktemp("known")
    write_pairs(folder, [replace(pair, meta={**pair.meta, **KNOWN}) for pair in PAIRS], 4)
    (folder / "README.md").write_text(CARD)
    return folder


def front_and_body(folder: Path) -> tuple[dict, str]:
    head, _, body = (folder / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(head), body


@pytest.mark.parametrize("layout_", TARGETS)
def test_card_licence_and_provenance_go_with_an_export(known: Path, tmp_path: Path, layout_: str):
    out = tmp_path / "out"
    export(known, layout_, out, Cache())
    front, body = front_and_body(out)
    assert front["license"] == "cc0-1.0"
    assert front["language"] == ["en"]
    assert set(front["tags"]) == {"landscapes", "image-editing", "crispedit"}
    assert "| **total** | **9** |" in body
    assert "- photographs from: landscapes (9)" in body
    assert "### Landscapes\n\nTaken by the author." in body
    assert "\n# a comment\n" in body
    if layout_ == "folder":
        rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    elif layout_ == "trainers":
        rows = list(csv.DictReader((out / "metadata.csv").open(encoding="utf-8")))
    elif layout_ == "released":
        rows = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
        for row in rows:
            file = pq.read_table(out / "data" / row["file"]).to_pylist()
            assert file[row["row"]]["input_img"]["bytes"] == BY_KEY[row["key"]].source_jpeg
    else:
        rows = pq.read_table(out / "data").to_pylist()
    assert len(rows) == len(PAIRS)
    assert all(KNOWN.items() <= row.items() for row in rows)


def test_several_licences_are_none_of_the_set(known: Path, folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    pair = replace(make_pair("other"), meta={**PAIRS[0].meta, **KNOWN, "licence": "cc-by-4.0"})
    write_pairs(other, [pair], 4)
    export([str(known), str(other)], "hf", tmp_path / "out", Cache())
    front, body = front_and_body(tmp_path / "out")
    assert "license" not in front
    assert "- licence of the photographs: cc-by-4.0 (1), cc0-1.0 (9)" in body


@pytest.mark.parametrize("key", ["../escape", "inner/pair", "/root"])
def test_a_key_that_is_a_path_is_an_error(tmp_path: Path, key: str):
    pair = PAIRS[0]
    members = {
        "source.jpg": pair.source_jpeg,
        "edited.jpg": pair.edited_jpeg,
        "json": b'{"category": "add", "instruction": "x"}',
    }
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"{key}.{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for layout_ in TARGETS:
        with pytest.raises(ValueError, match="must not contain a slash"):
            export(tmp_path / "a.tar", layout_, tmp_path / "out", Cache())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


def test_no_pairs_is_an_error(folder: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("notes.txt"))
    with pytest.raises(ValueError, match="no pairs"):
        export(tmp_path / "empty.tar", "hf", tmp_path / "out", Cache())


def test_hints_fit_what_was_given(tmp_path: Path, folder: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "shards").symlink_to(folder)
    (tmp_path / "empty").mkdir()
    hints = {"run": "did you mean .*run/shards", "nowhere": "no such file or folder", "empty": "no set of shards"}
    for name, hint in hints.items():
        with pytest.raises(ValueError, match=hint):
            export(str(tmp_path / name), "hf", tmp_path / "out", Cache())
