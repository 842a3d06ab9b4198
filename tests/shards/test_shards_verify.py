"""Verification: a whole set passes; every single damage is found and named."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_pairs import make_pair, write_pairs

from crispedit import images
from crispedit.shards import layout
from crispedit.shards.pack import Pair, file_sha256
from crispedit.shards.remote import Cache
from crispedit.shards.verify import verify

PAIRS = [make_pair(str(i), ("add", "style")[i % 2], i % 2 == 0) for i in range(10)]
SHARD = "crispedit-add-000000.tar"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "set", PAIRS, 4)
    return tmp_path / "set"


def kinds(folder: Path, deep: bool = False) -> dict[str, int]:
    report = verify(str(folder), deep, 2, Cache())
    assert report.ok == (not report.problems)
    return json.loads(json.dumps(report.to_json()))["counts"]


def test_an_index_is_read_by_no_thread_of_arrow(folder: Path):
    """One that still held the bytes when the interpreter ended aborted it."""
    program = (
        "import os, sys; from crispedit.shards.index import read_index, read_manifest; import pyarrow.dataset; "
        "before = os.listdir('/proc/self/task'); rows = len(read_index(sys.argv[1], read_manifest(sys.argv[1]))); "
        "assert os.listdir('/proc/self/task') == before; print(rows)"
    )
    if not Path("/proc/self/task").exists():
        pytest.skip("threads are counted where Linux lists them")
    assert int(subprocess.check_output([sys.executable, "-c", program, str(folder)], cwd=ROOT)) > 20


def rewrite_manifest(folder: Path, change) -> None:
    manifest = json.loads((folder / layout.MANIFEST).read_text())
    change(manifest)
    (folder / layout.MANIFEST).write_text(json.dumps(manifest))


def rewrite_index(folder: Path, change) -> None:
    table = pq.read_table(folder / layout.INDEX)
    rows = [new for row in table.to_pylist() if (new := change(row)) is not None]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / layout.INDEX)
    rewrite_manifest(folder, lambda m: m["index"].update(sha256=file_sha256(folder / layout.INDEX)))


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_set_passes(folder: Path, deep: bool):
    done = []
    report = verify(str(folder), deep, 2, Cache(), done.append)
    assert report.ok
    assert (report.pairs, report.shards, dict(report.categories)) == (10, 4, {"add": 5, "style": 5})
    assert len(done) == 4
    assert report.unknown == ({"source_caption": 10, "licence": 10} if deep else {})


def test_a_flipped_byte_is_found_in_shard_and_member(folder: Path):
    row = next(row for row in pq.read_table(folder / layout.INDEX).to_pylist() if row["shard"] == SHARD)
    data = bytearray((folder / SHARD).read_bytes())
    data[row["offset"] + row["size"] // 2] ^= 4
    (folder / SHARD).write_bytes(data)
    assert kinds(folder) == {"hash": 2}
    problems = verify(str(folder), False, 1, Cache()).problems
    assert {(p.key, p.offset) for p in problems} == {(None, None), (row["key"], row["offset"])}


def test_a_flipped_byte_in_a_header(folder: Path):
    data = bytearray((folder / SHARD).read_bytes())
    data[3] ^= 1  # of the first member's name
    (folder / SHARD).write_bytes(data)
    assert set(kinds(folder)) >= {"hash", "missing_member"}


def test_a_truncated_shard(folder: Path):
    data = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(data[:-2000])
    assert set(kinds(folder)) >= {"truncated", "missing_member"}


def test_missing_and_foreign_shards(folder: Path):
    (folder / SHARD).rename(folder / "crispedit-add-000077.tar")
    assert kinds(folder) == {"missing_shard": 1, "foreign_shard": 1, "wrong_count": 3}


def test_a_foreign_member(folder: Path, tmp_path: Path):
    import io
    import tarfile

    with tarfile.open(folder / SHARD, "a") as tar:
        info = tarfile.TarInfo("x.txt")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    path = folder / SHARD
    rewrite_manifest(folder, lambda m: m["shards"][0].update(sha256=file_sha256(path), bytes=path.stat().st_size))
    rewrite_manifest(folder, lambda m: m.update(bytes=sum(s["bytes"] for s in m["shards"])))
    assert kinds(folder) == {"foreign_member": 1}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda r: None, {"missing_member": 1, "wrong_index": 1}),
        (lambda r: {**r, "offset": r["offset"] + 512}, {"wrong_index": 1, "hash": 1}),
        (lambda r: {**r, "width": 7}, {"wrong_index": 1, "sizes_differ": 1}),
        (lambda r: {**r, "xxh3_64": 1}, {"hash": 1}),
    ],
)
def test_an_index_that_disagrees_with_its_tars(folder: Path, change, found: dict):
    place = (PAIRS[0].key, layout.EDITED)
    rewrite_index(folder, lambda r: change(r) if (r["key"], r["member"]) == place else r)
    assert kinds(folder) == found


def test_an_index_that_is_not_the_manifests(folder: Path):
    rewrite_manifest(folder, lambda m: m["index"].update(sha256="0" * 64))
    assert kinds(folder) == {"hash": 1}


def test_totals_of_the_manifest(folder: Path):
    rewrite_manifest(folder, lambda m: m["categories"].update(add=6))
    assert kinds(folder) == {"wrong_count": 1}
    rewrite_manifest(folder, lambda m: (m["categories"].update(add=5), m["shards"][0].update(pairs=3)))
    assert kinds(folder) == {"wrong_count": 1}


def test_duplicates_by_images(tmp_path: Path):
    first = make_pair("a")
    other = Pair("0" * 32, "add", first.source_jpeg, first.edited_jpeg, first.mask_png, first.meta)
    write_pairs(tmp_path, [first, other], 1)
    assert kinds(tmp_path) == {"duplicate": 1}


def test_deep_finds_what_only_reading_shows(tmp_path: Path):
    good = make_pair("a")
    small = make_pair("b", width=48, height=32)
    cut = images.encode_jpeg(images.decode_jpeg(good.source_jpeg))[:-300]
    pairs = [
        Pair("1" * 32, "add", cut, good.edited_jpeg, None, {"instruction": "x"}),
        Pair("2" * 32, "add", good.source_jpeg, good.edited_jpeg, None, {"instruction": " "}),
        Pair("3" * 32, "add", good.source_jpeg, small.edited_jpeg, None, {"instruction": "x"}),
    ]
    write_pairs(tmp_path, pairs, 2)
    assert kinds(tmp_path) == {"sizes_differ": 1}
    assert kinds(tmp_path, deep=True) == {"sizes_differ": 2, "undecodable": 1, "caption": 1}
