"""The pack plan, the bytes of a shard, its commit and the manifest."""

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from shard_pairs import make_pair, write_pairs

from crispedit.record import content_key
from crispedit.shards import layout
from crispedit.shards.pack import Pair, committed, document, file_sha256, finish, plan, write_shard
from crispedit.shards.tar import header

KEYS = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), unique=True, max_size=40)


@given(KEYS, st.integers(1, 9), st.integers(0, 3), st.randoms(use_true_random=False), st.sets(st.integers(0, 39)))
def test_plan_is_a_partition_whatever_the_input_order(keys, size, seed, random, masked_places):
    by_category = {"add": keys[::2], "style": keys[1::2]}
    masked = {keys[i] for i in masked_places if i < len(keys)}
    shards = plan(by_category, size, seed, masked)
    shuffled = {category: random.sample(k, len(k)) for category, k in reversed(by_category.items())}
    assert plan(shuffled, size, seed, masked) == shards
    assert sorted(key for shard in shards for key in shard.keys) == sorted(keys)
    assert [shard.name for shard in shards] == sorted({shard.name for shard in shards})
    for shard in shards:
        assert 1 <= len(shard.keys) <= size
        assert set(shard.keys) <= set(by_category[shard.category])
        assert all((key in masked) == shard.masked for key in shard.keys)


@given(KEYS, st.integers(1, 9), st.integers(0, 3), st.sets(st.integers(0, 39)))
def test_the_order_within_a_category_is_that_of_the_hashes_of_seed_and_key(keys, size, seed, masked_places):
    masked = {keys[i] for i in masked_places if i < len(keys)}
    ordered = sorted(keys, key=lambda key: (key not in masked, content_key("pack", str(seed), key)))
    assert [key for shard in plan({"add": keys}, size, seed, masked) for key in shard.keys] == ordered


def test_another_seed_gives_another_order():
    keys = {"add": [f"{i:032x}" for i in range(50)]}
    assert plan(keys, 50, 0, ())[0].keys != plan(keys, 50, 1, ())[0].keys


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "..", "a\nb", "e\u0301", "\u00e9" * 101])
def test_plan_refuses_keys_that_cannot_name_files(key):
    with pytest.raises(ValueError, match="key"):
        plan({"add": [key]}, 1, 0, ())


def test_plan_refuses_a_key_in_two_categories():
    with pytest.raises(ValueError, match="planned 2 times"):
        plan({"add": ["aa"], "style": ["aa"]}, 4, 0, ())


@pytest.mark.parametrize("category", ["", "Add", "background change", "../x", "a--b"])
def test_plan_refuses_categories_that_cannot_name_files(category):
    with pytest.raises(ValueError, match="category"):
        plan({category: ["aa"]}, 1, 0, ())


def test_shard_is_plain_ustar_without_clock_or_user(tmp_path: Path):
    pairs = [make_pair(str(i), masked=True) for i in range(3)]
    (entry,) = write_pairs(tmp_path, pairs, 8)
    data = (tmp_path / entry.name).read_bytes()
    assert len(data) == entry.bytes
    assert file_sha256(tmp_path / entry.name) == entry.sha256
    with tarfile.open(tmp_path / entry.name) as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member).read() for member in members}
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.type, member.pax_headers) == (0o644, tarfile.REGTYPE, {})
    for pair in pairs:
        assert contents[f"{pair.key}.source.jpg"] == pair.source_jpeg
        assert contents[f"{pair.key}.edited.jpg"] == pair.edited_jpeg
        assert contents[f"{pair.key}.mask.png"] == pair.mask_png
        assert contents[f"{pair.key}.json"].decode() == document(pair)
    assert len(contents) == 12


def test_index_points_at_the_members(tmp_path: Path):
    pairs = [make_pair(str(i), category, masked=category == "add") for i in range(3) for category in ("add", "style")]
    write_pairs(tmp_path, pairs, 2)
    index = pq.read_table(tmp_path / layout.INDEX).to_pylist()
    assert len(index) == 3 * 4 + 3 * 3
    for row in index:
        with tarfile.open(tmp_path / row["shard"]) as tar:
            data = tar.extractfile(f"{row['key']}.{row['member']}").read()
        with open(tmp_path / row["shard"], "rb") as file:
            assert os.pread(file.fileno(), row["size"], row["offset"]) == data
        assert xxhash.xxh3_64_intdigest(data) == row["xxh3_64"]
        image = row["member"] != layout.META
        assert (row["width"], row["height"]) == ((96, 64) if image else (None, None))


def test_unicode_and_long_keys_use_pax(tmp_path: Path):
    first = make_pair("one")
    keys = ["ключ", "k" * 150]
    pairs = [
        Pair(key, "add", first.source_jpeg, first.edited_jpeg, first.mask_png, {"instruction": "bildä"}) for key in keys
    ]
    (entry,) = write_pairs(tmp_path, pairs, 2)
    with tarfile.open(tmp_path / entry.name) as tar:
        assert {name.split(".")[0] for name in tar.getnames()} == set(keys)
        for row in pq.read_table(tmp_path / layout.INDEX).to_pylist():
            assert tar.getmember(f"{row['key']}.{row['member']}").offset_data == row["offset"]


def test_same_pairs_give_the_same_bytes_anywhere(tmp_path: Path):
    pairs = [make_pair(str(i), ("add", "style")[i % 2]) for i in range(7)]
    write_pairs(tmp_path / "a", pairs, 2)
    write_pairs(tmp_path / "b", pairs[::-1], 2)
    a, b = ({p.relative_to(d): p for d in [tmp_path / n] for p in d.rglob("*.*")} for n in "ab")
    assert a.keys() == b.keys()
    for name, path in a.items():
        if path.is_file():
            assert path.read_bytes() == b[name].read_bytes(), name


def test_document_types_do_not_depend_on_the_row():
    pair = make_pair("x")
    row = json.loads(document(pair))
    assert row["format"] == layout.FORMAT_VERSION
    assert (row["key"], row["category"]) == (pair.key, "add")
    assert row["scores"] == [{"name": "alignment_px", "value": 0.0}, {"name": "preservation_ssim", "value": 0.5}]
    assert isinstance(row["scores"][0]["value"], float)
    assert row["editor_options"] == '{"strength":1}'
    assert row["source_caption"] == ""
    again = Pair(pair.key, pair.category, pair.source_jpeg, pair.edited_jpeg, pair.mask_png, row)
    assert document(again) == document(pair)


def test_document_refuses_what_json_cannot_say():
    pair = make_pair("x")
    for meta in ({"scores": {"a": float("nan")}}, {"value": object()}, {"key": "another"}):
        with pytest.raises(ValueError, match=pair.key):
            document(Pair(pair.key, "add", b"", b"", None, meta))


def test_write_shard_takes_exactly_the_plan(tmp_path: Path):
    pairs = [make_pair(str(i)) for i in range(3)]
    (shard,) = plan({"add": [p.key for p in pairs]}, 8, 0, {p.key for p in pairs})
    ordered = [next(p for p in pairs if p.key == key) for key in shard.keys]
    unmasked = Pair(ordered[0].key, "add", ordered[0].source_jpeg, ordered[0].edited_jpeg)
    broken = Pair(ordered[0].key, "add", b"not a jpeg", ordered[0].edited_jpeg, ordered[0].mask_png)
    for wrong in (ordered[:2], ordered[::-1], [*ordered, ordered[0]], [unmasked, *ordered[1:]], [broken, *ordered[1:]]):
        with pytest.raises(ValueError, match=shard.name):
            write_shard(tmp_path, shard, wrong, "d")
        assert committed(tmp_path, shard, "d") is None
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    entry = write_shard(tmp_path, shard, ordered, "d")
    assert committed(tmp_path, shard, "d") == entry


def test_committed_wants_digest_tar_and_part(tmp_path: Path):
    pairs = [make_pair("a")]
    (shard,) = plan({"add": [pairs[0].key]}, 8, 0, {pairs[0].key})
    entry = write_shard(tmp_path, shard, pairs, "d")
    assert committed(tmp_path, shard, "other") is None
    with open(tmp_path / shard.name, "ab") as file:
        file.truncate(entry.bytes - 1)
    assert committed(tmp_path, shard, "d") is None
    write_shard(tmp_path, shard, pairs, "d")
    (tmp_path / layout.part_name(shard.name)).unlink()
    assert committed(tmp_path, shard, "d") is None


def test_a_set_has_no_manifest_while_a_shard_is_rewritten(tmp_path: Path):
    pairs = [make_pair("a"), make_pair("b")]
    (entry,) = write_pairs(tmp_path, pairs, 8)
    before = (tmp_path / layout.MANIFEST).read_bytes()
    (shard,) = plan({"add": [p.key for p in pairs]}, 8, 0, {p.key for p in pairs})
    by_key = {p.key: p for p in pairs}
    write_shard(tmp_path, shard, (by_key[k] for k in shard.keys), "digest")
    assert not (tmp_path / layout.MANIFEST).exists()
    finish(tmp_path, [entry], {"recipe": "test"})
    assert (tmp_path / layout.MANIFEST).read_bytes() == before


def test_finish_sweeps_stale_shards_and_leftovers(tmp_path: Path):
    write_pairs(tmp_path, [make_pair(str(i), c) for i in range(4) for c in ("add", "style")], 2)
    (tmp_path / ".crispedit-add-000009.tar.x.tmp").write_bytes(b"half")
    (tmp_path / "README.md").write_text("the card stays")
    write_pairs(tmp_path, [make_pair("0")], 2)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        "README.md",
        "crispedit-add-000000.tar",
        "index.parquet",
        "index/crispedit-add-000000.parquet",
        "manifest.json",
        "wids.json",
    ]


def test_finish_refuses_a_shard_that_was_not_committed(tmp_path: Path):
    (entry,) = write_pairs(tmp_path, [make_pair("0")], 2)
    (tmp_path / layout.part_name(entry.name)).unlink()
    with pytest.raises(ValueError, match="never committed"):
        finish(tmp_path, [entry], {})
    assert not (tmp_path / layout.MANIFEST).exists()


@given(st.text(max_size=120).filter(lambda name: "\0" not in name), st.integers(0, 8**11 + 5))
def test_headers_are_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    assert header(name, size) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


@pytest.mark.parametrize("number", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF1])
def test_a_perceptual_hash_stays_exact(number: int):
    pair = replace(
        make_pair("x"), meta={"scores": {"duplicate.phash": number, "duplicate.edited_phash": None, "a.b": 1}}
    )
    row = json.loads(document(pair))
    assert row["scores"] == [{"name": "a.b", "value": 1.0}]
    edited, source = row["hashes"]
    assert (edited["name"], edited["value"]) == ("duplicate.edited_phash", "")
    assert (int(source["value"], 16) - number) % 2**64 == 0
    assert document(replace(pair, meta=row)) == document(pair)
