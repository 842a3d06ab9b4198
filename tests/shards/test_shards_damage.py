"""Damage of every kind: found, named by shard, key and byte, fatal or skipped, and counted."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_pairs import make_pair, write_pairs

from crispedit.shards import layout
from crispedit.shards.damage import Damage
from crispedit.shards.pack import file_sha256
from crispedit.shards.read import read_shards

PAIRS = [make_pair(str(i)) for i in range(8)]
SHARD = "crispedit-add-000000.tar"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "set", PAIRS, 4)
    return tmp_path / "set"


def rows_of(folder: Path) -> list[dict]:
    return pq.read_table(folder / layout.INDEX).to_pylist()


def row_of(folder: Path, number: int, member: str) -> dict:
    return [row for row in rows_of(folder) if row["shard"] == SHARD and row["member"] == member][number]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def rewrite_index(folder: Path, change) -> None:
    """Change index rows and make the manifest agree, as a wrong tool would."""
    rows = [row for row in map(change, rows_of(folder)) if row is not None]
    schema = pq.read_schema(folder / layout.INDEX)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / layout.INDEX)
    manifest = json.loads((folder / layout.MANIFEST).read_text())
    manifest["index"]["sha256"] = file_sha256(folder / layout.INDEX)
    (folder / layout.MANIFEST).write_text(json.dumps(manifest))


def check(folder: Path, kind: str, lost: set[str], key=None, offset=None, workers=(0,)) -> None:
    """Raised with its place when damage is fatal; else exactly the lost keys are left out, and counted."""
    for count in workers:
        with pytest.raises(Damage) as raised, read_shards(folder, workers=count) as reader:
            list(reader)
        assert raised.value.kind == kind
        assert SHARD in raised.value.shard
        assert (key is None) or raised.value.key == key
        assert (offset is None) or raised.value.offset == offset
        assert SHARD in str(raised.value)
        assert kind in str(raised.value)
        for batch_size in (None, 3):
            with read_shards(folder, workers=count, on_damage="skip", batch_size=batch_size) as reader:
                keys = [k for item in reader for k in (item.keys if batch_size else [item.key])]
            assert set(keys) == {pair.key for pair in PAIRS} - lost
            assert len(keys) == len(set(keys))
            assert reader.damage == {kind: len(lost)}
            assert {found.key for found in reader.damaged} == lost


def test_a_flipped_byte(folder: Path):
    row = row_of(folder, 1, layout.EDITED)
    at = row["offset"] + row["size"] // 2
    flipped = bytes([(folder / SHARD).read_bytes()[at] ^ 1])
    overwrite(folder / SHARD, at, flipped)
    check(folder, "hash", {row["key"]}, row["key"], row["offset"], workers=(0, 1))


def test_a_truncated_shard(folder: Path):
    row = row_of(folder, 2, layout.MASK)
    with open(folder / SHARD, "r+b") as file:
        file.truncate(row["offset"] + 3)
    lost = {row["key"], row_of(folder, 3, layout.META)["key"]}
    check(folder, "truncated", lost, row["key"], row["offset"])


def test_a_missing_shard(folder: Path):
    (folder / SHARD).unlink()
    check(folder, "missing_shard", {r["key"] for r in rows_of(folder) if r["shard"] == SHARD}, workers=(0, 1))


def test_an_index_without_a_member(folder: Path):
    row = row_of(folder, 0, layout.EDITED)
    rewrite_index(folder, lambda r: None if (r["key"], r["member"]) == (row["key"], layout.EDITED) else r)
    check(folder, "missing_member", {row["key"]}, row["key"])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"offset": 512 * 3}, "hash"),
        ({"offset": 1 << 60}, "truncated"),
        ({"offset": -7}, "truncated"),
        ({"size": 1 << 50}, "truncated"),
        ({"size": 5}, "hash"),
        ({"width": 97}, "sizes_differ"),
    ],
)
def test_an_index_that_points_elsewhere(folder: Path, change: dict, kind: str):
    row = row_of(folder, 1, layout.SOURCE)
    place = (row["key"], layout.SOURCE)
    rewrite_index(folder, lambda r: {**r, **change} if (r["key"], r["member"]) == place else r)
    check(folder, kind, {row["key"]}, row["key"])


def test_an_index_that_is_not_the_manifests(folder: Path):
    data = (folder / layout.INDEX).read_bytes()
    overwrite(folder / layout.INDEX, len(data) // 2, bytes([data[len(data) // 2] ^ 1]))
    with pytest.raises(Damage, match="not the one that the manifest names"):
        read_shards(folder)
    reader = read_shards(folder, on_damage="skip")  # falls back on the headers of the tars
    assert {pair.key for pair in reader} == {pair.key for pair in PAIRS}
    assert reader.damage == {"hash": 1}


def plain_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def members_of(folder: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(folder / SHARD) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def test_scanned_tars_name_what_is_wrong_in_them(folder: Path, tmp_path: Path):
    members = members_of(folder)
    names = [name for name, _ in members]
    keys = [name.split(".")[0] for name in names[::4]]
    broken = dict(members)
    broken[f"{keys[0]}.edited.jpg"] = b"no jpeg"
    broken[f"{keys[1]}.json"] = b"[1]"
    del broken[f"{keys[2]}.source.jpg"]
    broken["README.txt"] = b"foreign"
    path = tmp_path / SHARD
    plain_tar(path, list(broken.items()))
    reader = read_shards(path, on_damage="skip")
    assert [pair.key for pair in reader] == [keys[3]]
    assert reader.damage == {"undecodable": 1, "json": 1, "foreign_member": 1, "missing_member": 3}
    with pytest.raises(Damage, match=f"{SHARD}: key {keys[0]} at byte .*undecodable"):
        list(read_shards(path))


@pytest.mark.parametrize("cut", [100, 512 * 20 + 77, -1024, -900])
def test_a_truncated_plain_tar(folder: Path, tmp_path: Path, cut: int):
    path = tmp_path / SHARD
    shutil.copy(folder / SHARD, path)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(cut % size)
    with pytest.raises(Damage, match=f"{SHARD}.*truncated"):
        read_shards(path)
    reader = read_shards(path, on_damage="skip")
    whole = {pair.key for pair in reader}
    assert reader.damage["truncated"] == 1
    assert len(whole) == (0 if cut == 100 else 4 if cut < 0 else len(whole))
    assert whole <= {pair.key for pair in PAIRS}


def test_joined_tars_are_not_read_by_half(folder: Path, tmp_path: Path):
    path = tmp_path / SHARD
    path.write_bytes((folder / SHARD).read_bytes() + (folder / "crispedit-add-000001.tar").read_bytes())
    with pytest.raises(Damage, match=r"truncated: there is more after the end of the tar .* unpack joined tars"):
        read_shards(path)
    reader = read_shards(path, on_damage="skip")
    assert len(list(reader)) == 4
    assert reader.damage == {"truncated": 1}


def test_equal_coverage_keeps_its_length_through_damage(folder: Path):
    whole = [[pair.key for pair in read_shards(folder, rank=r, world_size=2, coverage="equal")] for r in (0, 1)]
    row = row_of(folder, 1, layout.EDITED)
    overwrite(folder / SHARD, row["offset"], b"xx")
    for workers in (0, 1):
        with read_shards(folder, rank=0, world_size=2, coverage="equal", workers=workers, on_damage="skip") as reader:
            keys = [pair.key for pair in reader]
        assert len(keys) == len(whole[1])
        place = whole[0].index(row["key"])
        assert keys == [*whole[0][:place], whole[0][place + 1], *whole[0][place + 1 :]]
        assert reader.damage == {"hash": 1}


def test_equal_coverage_of_nothing_readable_is_an_error(folder: Path):
    for shard in folder.glob("*.tar"):
        shard.unlink()
    with pytest.raises(Damage, match="missing_shard"):
        list(read_shards(folder, coverage="equal", on_damage="skip"))
