"""Merging and resharding: nothing lost, nothing twice, quotas met, the same bytes again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_pairs import make_pair, write_pairs

from crispedit.shards import layout
from crispedit.shards.pack import Pair, document
from crispedit.shards.read import read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.reshard import repack
from crispedit.shards.verify import verify

PAIRS = [make_pair(str(i), ("add", "style")[i % 2], i % 3 != 0) for i in range(12)]


def read(folder: Path) -> dict[str, Pair]:
    return {pair.key: pair for pair in read_shards(folder, decode=False)}


def again(folder: Path, out: Path, **options) -> None:
    repack([str(folder)], out, cache=Cache(), **{"pairs_per_shard": 5, "seed": 0, "quotas": {}, **options})


def test_resharding_keeps_every_byte(tmp_path: Path):
    write_pairs(tmp_path / "a", PAIRS, 4)
    again(tmp_path / "a", tmp_path / "b", pairs_per_shard=2, seed=9)
    before, after = read(tmp_path / "a"), read(tmp_path / "b")
    assert before == after
    for pair in PAIRS:
        assert document(after[pair.key]) == document(pair)
    assert verify(str(tmp_path / "b"), True, 1, Cache()).ok
    again(tmp_path / "b", tmp_path / "c", pairs_per_shard=4, seed=0)
    for tar in (tmp_path / "a").glob("*.tar"):
        assert (tmp_path / "c" / tar.name).read_bytes() == tar.read_bytes()


@settings(max_examples=15)
@given(
    parts=st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=3), quota=st.none() | st.integers(0, 6)
)
def test_merging_conserves_pairs(tmp_path_factory, parts: list[set[int]], quota: int | None):
    root = tmp_path_factory.mktemp("merge")
    for number, part in enumerate(parts):
        write_pairs(root / str(number), [PAIRS[i] for i in part], 3)
    union = {PAIRS[i].key: PAIRS[i] for part in parts for i in part}
    adds = sum(pair.category == "add" for pair in union.values())
    quotas = {} if quota is None or not adds else {"add": quota}
    result = repack([str(root / str(n)) for n in range(len(parts))], root / "out", 4, 0, quotas, Cache())
    kept = read(root / "out")
    assert result.given == sum(map(len, parts))
    assert result.given == result.written + result.same_key + result.same_images + result.over_quota
    assert result.written == len(kept)
    assert kept.keys() <= union.keys()
    assert sum(p.category == "add" for p in kept.values()) == min(adds, quotas.get("add", adds))
    assert sum(p.category != "add" for p in kept.values()) == len(union) - adds


def test_the_same_images_under_another_key_are_dropped(tmp_path: Path):
    pair = PAIRS[1]
    twin = Pair("f" * 32, pair.category, pair.source_jpeg, pair.edited_jpeg, pair.mask_png, pair.meta)
    write_pairs(tmp_path / "a", [pair], 4)
    write_pairs(tmp_path / "b", [twin], 4)
    result = repack([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out", 4, 0, {}, Cache())
    assert (result.written, result.same_images) == (1, 1)
    assert list(read(tmp_path / "out")) == [pair.key]


def test_one_key_with_other_images_is_an_error(tmp_path: Path):
    pair, other = PAIRS[1], PAIRS[3]
    clash = Pair(pair.key, pair.category, other.source_jpeg, other.edited_jpeg, other.mask_png, other.meta)
    write_pairs(tmp_path / "a", [pair], 4)
    write_pairs(tmp_path / "b", [clash], 4)
    with pytest.raises(ValueError, match=f"{pair.key}.*earlier set"):
        repack([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out", 4, 0, {}, Cache())
    assert not (tmp_path / "out").exists()


def test_plain_tars_become_a_set(tmp_path: Path):
    write_pairs(tmp_path / "a", PAIRS, 4)
    (tmp_path / "a" / layout.MANIFEST).unlink()
    again(tmp_path / "a" / "*.tar", tmp_path / "b")
    assert read(tmp_path / "b") == {key: pair for key, pair in read_tars(tmp_path / "a").items()}


def read_tars(folder: Path) -> dict[str, Pair]:
    return {pair.key: pair for pair in read_shards(str(folder / "*.tar"), decode=False)}


def test_a_merge_that_was_cut_off_goes_on(tmp_path: Path):
    write_pairs(tmp_path / "a", PAIRS, 4)
    again(tmp_path / "a", tmp_path / "whole")

    class Cut(Exception):  # noqa: N818
        pass

    def cut(entry) -> None:
        raise Cut

    with pytest.raises(Cut):
        repack([str(tmp_path / "a")], tmp_path / "b", 5, 0, {}, Cache(), cut)
    (first,) = (tmp_path / "b").glob("*.tar")
    stamp = first.stat().st_mtime_ns
    with pytest.raises(ValueError, match="unfinished"):
        read_shards(tmp_path / "b")
    again(tmp_path / "a", tmp_path / "b")
    assert first.stat().st_mtime_ns == stamp
    for path in (tmp_path / "whole").rglob("*.*"):
        assert (tmp_path / "b" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_wrong_requests_are_refused(tmp_path: Path):
    write_pairs(tmp_path / "a", PAIRS, 4)
    write_pairs(tmp_path / "other", PAIRS[:2], 4)
    again(tmp_path / "a", tmp_path / "made")
    again(tmp_path / "a", tmp_path / "made")
    for source, out in (("other", "a"), ("other", "made")):  # as one may take OUT for a source
        with pytest.raises(ValueError, match=f"{out}: holds another set"):
            again(tmp_path / source, tmp_path / out)
    before = {path: path.read_bytes() for path in (tmp_path / "a").glob("*.*")}
    with pytest.raises(ValueError, match="no category 'ad'"):
        again(tmp_path / "a", tmp_path / "b", quotas={"ad": 1})
    for source in (tmp_path / "a", tmp_path / "a" / "manifest.json", tmp_path / "a" / "*.tar"):
        with pytest.raises(ValueError, match="over one of its sources"):
            again(source, tmp_path / "a")
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").glob("*.*")}
    manifest = json.loads((tmp_path / "a" / layout.MANIFEST).read_text())
    assert manifest["pairs"] == len(PAIRS)


def test_cards_and_what_the_sets_say_of_themselves_survive(tmp_path: Path):
    known = {"dataset": "mine", "licence": "cc0-1.0"}
    for name, some in (("a", PAIRS[:3]), ("b", PAIRS[3:5])):
        write_pairs(tmp_path / name, [replace(pair, meta={**pair.meta, **known}) for pair in some], 4)
        (tmp_path / name / "README.md").write_text(f"---\nlicense: cc0-1.0\n---\n# Set {name}\n\nSaid of {name}.\n")
    repack([str(tmp_path / name) for name in "ab"], tmp_path / "out", 4, 0, {}, Cache())
    text = (tmp_path / "out" / "README.md").read_text()
    assert "license: cc0-1.0" in text
    assert "5 pairs, merged by CrispEdit" in text
    assert "mine (5)" in text
    assert all(f"Said of {name}." in text for name in "ab")
    meta = json.loads((tmp_path / "out" / layout.MANIFEST).read_text())["meta"]
    assert meta["recipe"] == "test", "what all sources say"
    assert meta["repacked"]["meta"] == [{"recipe": "test"}] * 2
