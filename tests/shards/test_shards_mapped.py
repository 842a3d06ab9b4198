"""The index that the processes of a node share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shard_pairs import make_pair, write_pairs

from crispedit.shards import index, layout
from crispedit.shards.read import read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.verify import verify


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set whose index is shared as that of a large one is."""
    pairs = [make_pair(str(n), ("add", "style")[n % 2], masked=n % 3 > 0) for n in range(9)]
    write_pairs(tmp_path / "set", pairs, 2)
    monkeypatch.setattr(index, "MAPPED_PAIRS", 1)
    return tmp_path / "set"


def test_a_mapped_index_is_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = Cache(tmp_path / "cache")
    shared = [index.open_index(folder, cache) for _ in range(2)]
    assert [path.suffix for path in cache.folder.iterdir() if not path.name.startswith(".")] == [".arrow"]
    monkeypatch.setattr(index, "MAPPED_PAIRS", 100)
    alone = index.open_index(folder, cache)
    for made in shared:
        assert (made.keys, made.shards, made.categories) == (alone.keys, alone.shards, alone.categories)
        assert made.fingerprint == alone.fingerprint
        for name in ("shard_of", "category_of", "size_of", "offsets", "sizes", "hashes"):
            assert np.array_equal(getattr(made, name), getattr(alone, name))
            assert getattr(made, name).dtype == getattr(alone, name).dtype


def test_a_second_reader_reads_no_index(folder: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    first = [pair.key for pair in read_shards(folder, cache=cache, shuffle=True)]
    (folder / layout.INDEX).unlink()
    assert [pair.key for pair in read_shards(folder, cache=cache, shuffle=True)] == first


def test_another_set_in_the_same_folder_is_another_index(folder: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    assert len(read_shards(folder, cache=cache)) == 9
    write_pairs(folder, [make_pair(f"new {n}") for n in range(4)], 2)
    assert len(read_shards(folder, cache=cache)) == 4


def test_an_index_that_had_to_be_mended_is_not_shared(folder: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    (folder / layout.INDEX).write_bytes(b"damaged")
    reader = read_shards(folder, cache=cache, on_damage="skip")
    assert len(reader) == 9
    assert reader.damage
    assert list(cache.folder.glob("*.arrow")) == []
    with pytest.raises(ValueError, match="the index is not the one"):
        read_shards(folder, cache=cache)


def test_without_a_folder_to_write_each_process_has_its_own(folder: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    assert len(read_shards(folder, cache=Cache(tmp_path / "file" / "cache"))) == 9


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set that is packed as a large one is: with an index to map."""
    monkeypatch.setattr(index, "MAPPED_PAIRS", 1)
    pairs = [make_pair(str(n), ("add", "style")[n % 2], masked=n % 3 > 0) for n in range(9)]
    write_pairs(tmp_path / "set", pairs, 2)
    return tmp_path / "set"


def test_a_large_set_is_packed_with_an_index_that_the_first_reader_maps(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = Cache(tmp_path / "cache")
    shared = index.open_index(packed, cache)
    assert not shared.offsets.flags.owndata
    assert not cache.folder.exists()
    moved = packed.rename(tmp_path / "moved")
    assert len([pair.key for pair in read_shards(moved, cache=cache)]) == 9
    (moved / layout.MAPPED_INDEX).unlink()
    monkeypatch.setattr(index, "MAPPED_PAIRS", 100)
    alone = index.open_index(moved, cache)
    assert (shared.keys, shared.categories, shared.fingerprint) == (alone.keys, alone.categories, alone.fingerprint)
    for name in ("shard_of", "category_of", "size_of", "offsets", "sizes", "hashes"):
        assert np.array_equal(getattr(shared, name), getattr(alone, name))
        assert getattr(shared, name).dtype == getattr(alone, name).dtype


def test_the_named_shards_of_a_large_set_are_read_alone(packed: Path, tmp_path: Path):
    names = sorted(packed.glob("*.tar"))[:2]
    assert len(read_shards(names, cache=Cache(tmp_path / "cache"))) == 3


@pytest.mark.parametrize("harm", ["cut", "gone", "of another set"])
def test_without_its_mapped_index_a_set_is_read_by_its_table_and_verify_tells(harm: str, packed: Path, tmp_path: Path):
    path, cache = packed / layout.MAPPED_INDEX, Cache(tmp_path / "cache")
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "gone":
        path.unlink()
    else:
        write_pairs(tmp_path / "other", [make_pair(f"new {n}") for n in range(4)], 2)
        path.write_bytes((tmp_path / "other" / layout.MAPPED_INDEX).read_bytes())
    assert len([pair.key for pair in read_shards(packed, cache=cache)]) == 9
    (problem,) = verify(str(packed), False, 1, cache).problems
    assert (problem.kind, problem.shard) == ("missing_shard" if harm == "gone" else "hash", str(path))


def test_a_set_that_is_packed_again_and_is_small_has_no_index_to_map(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "MAPPED_PAIRS", 100)
    write_pairs(packed, [make_pair(f"new {n}") for n in range(4)], 2)
    assert not (packed / layout.MAPPED_INDEX).exists()
    assert len(read_shards(packed, cache=Cache(tmp_path / "cache"))) == 4


def test_arrays_come_back_as_views_of_the_file(folder: Path, tmp_path: Path):
    built = index.open_index(folder, Cache(tmp_path / "cache"))
    index.store(tmp_path / "file", built, "x")
    loaded = index.load(tmp_path / "file", built.shards, "x")
    assert loaded.keys == built.keys
    for name in ("shard_of", "category_of", "size_of", "offsets", "sizes", "hashes"):
        array = getattr(loaded, name)
        assert np.array_equal(array, getattr(built, name))
        assert not array.flags.owndata
        assert not array.flags.writeable
    with pytest.raises(OSError, match="another set"):
        index.load(tmp_path / "file", built.shards, "y")
