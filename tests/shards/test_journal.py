"""The journal: whole parts or nothing, every key once, and no byte believed without its hash."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crispedit.shards import journal
from crispedit.shards.journal import Table

TABLE = Table(
    pa.schema([("key", pa.string()), ("n", pa.int64()), ("image", pa.binary()), ("mask", pa.binary())]),
    blobs={"image": "jpg", "mask": "png"},
)


def row(key: str, n: int = 0, image: bytes | None = b"picture", mask: bytes | None = None) -> dict[str, object]:
    return {"key": key, "n": n, "image": image, "mask": mask}


def test_rows_and_their_bytes_come_back(tmp_path: Path):
    journal.commit(tmp_path, TABLE, [row("a", 1, b"x" * 1000, b"m"), row("b", 2, b"y"), row("c", 3, None)])
    rows = {r["key"]: r for r in journal.read(tmp_path, TABLE).to_pylist()}
    assert journal.read_blob(tmp_path, rows["a"]["image"]) == b"x" * 1000
    assert journal.read_blob(tmp_path, rows["a"]["mask"]) == b"m"
    assert journal.read_blob(tmp_path, rows["b"]["image"]) == b"y"
    assert rows["b"]["mask"] is None
    assert rows["c"]["image"] is None
    (tar,) = tmp_path.glob("*.tar")
    with tarfile.open(tar) as archive:  # a plain tar that any tool opens
        assert archive.getnames() == ["a.jpg", "a.png", "b.jpg"]


@settings(max_examples=25)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5), max_size=5))
def test_every_key_is_read_once_however_often_it_was_committed(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("table")
    for keys in parts:
        journal.commit(folder, TABLE, [row(key) for key in keys])
    keys = journal.read(folder, TABLE, ["key"]).column("key").to_pylist()
    assert sorted(keys) == sorted({key for keys in parts for key in keys})


def test_a_crash_leaves_only_garbage_that_is_not_read_and_is_swept(tmp_path: Path):
    journal.commit(tmp_path, TABLE, [row("a")])
    (tmp_path / "part-0123.tar").write_bytes(b"committed by nobody")
    (tmp_path / ".part-0456.parquet.1a2b.tmp").write_bytes(b"half a parquet")
    assert journal.read(tmp_path, TABLE, ["key"]).column("key").to_pylist() == ["a"]
    assert {path.name for path in journal.sweep(tmp_path)} == {"part-0123.tar", ".part-0456.parquet.1a2b.tmp"}
    assert journal.sweep(tmp_path) == []
    assert journal.read(tmp_path, TABLE, ["key"]).column("key").to_pylist() == ["a"]


def test_a_file_that_fails_to_be_written_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with journal.replaced(path) as out:
            out.write(b"new")
            raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_bytes_are_named(tmp_path: Path):
    journal.commit(tmp_path, TABLE, [row("a", image=b"x" * 600)])
    ref = journal.read(tmp_path, TABLE).to_pylist()[0]["image"]
    tar = tmp_path / ref["tar"]
    data = bytearray(tar.read_bytes())
    data[ref["offset"] + 5] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=r"part-.*\.tar is damaged"):
        journal.read_blob(tmp_path, ref)
    tar.write_bytes(data[: ref["offset"] + 10])
    with pytest.raises(ValueError, match="cut short: 10 of 600"):
        journal.read_blob(tmp_path, ref)
    tar.unlink()
    with pytest.raises(ValueError, match="missing"):
        journal.read_blob(tmp_path, ref)


def test_a_reference_cannot_leave_the_tables_folder(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    folder = tmp_path / "table"
    folder.mkdir()
    with pytest.raises(ValueError, match="leaves the run"):
        journal.read_blob(folder, {"tar": "../secret", "offset": 0, "size": 6, "xxh3_64": 0})
