"""Listing: containers by name on the driver, their photographs and pairs by workers, each byte once."""

from __future__ import annotations

import io
import pickle
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from range_server import RangeServer

from crispedit.pipelines import sources
from crispedit.pipelines.building import listing
from crispedit.pipelines.sources import FolderSource, ParquetSource, WebDatasetSource, pairs
from crispedit.pipelines.sources import parquet as parquet_module
from crispedit.pipelines.sources.pairs import AnySource, PairImages, PairsSource
from crispedit.shards import journal


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def listed(source: AnySource, run: Path) -> list[dict]:
    """The rows of a source's listing table, by way of a committed part."""
    containers, left_out = listing.containers(source)
    table, folder = listing.table(source), run / "listing"
    journal.commit(folder, table, [listing.row(listing.REST, skipped=left_out)])
    for container in containers:
        container = pickle.loads(pickle.dumps(container))
        journal.commit(folder, table, list(listing.index(source, container, str(folder))))
    rows = journal.read(folder, table).to_pylist()
    assert all(row["rows"] == len(row["members"]) for row in rows)
    return sorted(rows, key=lambda row: (row["container"], row["slice"]))


def members(rows: list[dict]) -> list:
    return [member for row in rows for member in listing.members(row)]


def test_the_listing_of_each_kind_is_what_a_listing_in_one_process_is(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    for n in range(3):
        (data / f"{n}.jpg").write_bytes(f"file {n}".encode())
        tar(data / f"{n}.tar", {f"{m}.jpg": f"{n}{m}".encode() for m in range(4)} | {"x.txt": b"x"})
        pq.write_table(pa.table({"image": [b"a", b"b"], "text": ["A", None]}), data / f"{n}.parquet")
    for number, source in enumerate(
        [
            FolderSource(path=str(data), licence="CC0"),
            WebDatasetSource(path=str(data), dataset="mine"),
            ParquetSource(path=str(data), caption="text"),
        ]
    ):
        rows = listed(source, tmp_path / f"run{number}")
        assert members(rows) == sources.entries(source)
        assert listing.skipped(rows) == sources.listing(source).skipped
        known = {uri for row in rows for uri in row["files"]}
        assert listing.containers(source, known)[0] == []
        (data / "new.jpg").write_bytes(b"new")
        tar(data / "new.tar", {"1.jpg": b"new"})
        pq.write_table(pa.table({"image": [b"new"], "text": ["A"]}), data / "new.parquet")
        (fresh,) = listing.containers(source, known)[0]
        assert {file.uri.partition(".")[0] for file in fresh.files} == {"new"}
        for path in data.glob("new.*"):
            path.unlink()


def test_the_files_of_a_folder_are_cut_into_containers(tmp_path: Path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.txt", "e.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    source = FolderSource(path=str(tmp_path))
    containers, _ = listing.containers(source, most=2)
    assert [[file.uri for file in one.files] for one in containers] == [
        ["a.jpg", "b.jpg"],
        ["c.jpg", "d.txt"],
        ["e.jpg"],
    ]
    assert len({one.key for one in containers}) == 3


def test_a_huge_container_is_several_rows(tmp_path: Path):
    tar(tmp_path / "a.tar", {f"{n}.jpg": b"x" for n in range(7)} | {"z.txt": b""})
    source = WebDatasetSource(path=str(tmp_path / "a.tar"))
    (container,), _ = listing.containers(source, most=3)
    rows = list(listing.index(source, container, str(tmp_path), most=3))
    assert [(row["key"], row["rows"], row["last"]) for row in rows] == [
        ("a.tar", 3, False),
        ("a.tar:1", 3, False),
        ("a.tar:2", 1, True),
    ]
    assert members(rows) == sources.entries(source)
    assert listing.skipped(rows).text() == "skipped: 1 file (1 .txt)"


def test_a_container_that_cannot_be_read_is_a_row_with_an_error(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    runs = tmp_path_factory.mktemp("runs")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 999)
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    for source in (WebDatasetSource(path=str(tmp_path)), ParquetSource(path=str(tmp_path))):
        (entry,) = members(listed(source, runs / source.kind))
        assert entry.error is not None


def test_a_fault_that_may_pass_is_raised(tmp_path: Path):
    tar(tmp_path / "a.tar", {"1.jpg": b"1" * 3000, "2.jpg": b"2"})
    source = WebDatasetSource(path=str(tmp_path))
    (container,), _ = listing.containers(source)
    (tmp_path / "a.tar").rename(tmp_path / "away")
    with pytest.raises(OSError, match="No such file"):
        list(listing.index(source, container, str(tmp_path)))
    (tmp_path / "away").rename(tmp_path / "a.tar")
    assert [row["rows"] for row in listing.index(source, container, str(tmp_path))] == [2]


# Bytes


def images(count: int, size: int = 20_000) -> list[bytes]:
    random = np.random.default_rng(0)
    return [random.bytes(size) for _ in range(count)]


@pytest.fixture
def server(tmp_path: Path):
    with RangeServer(tmp_path / "served") as running:
        yield running


def test_a_tar_is_listed_in_its_own_bytes_captions_included(server: RangeServer, tmp_path: Path):
    parts = {
        f"{n:03d}.{kind}": data
        for n, image in enumerate(images(400))
        for kind, data in (("jpg", image), ("txt", b"words"))
    }
    path = tar(server.folder / "a.tar", parts)
    source = WebDatasetSource(path=f"{server.url}/a.tar", caption="txt")
    containers, _ = listing.containers(source)
    assert server.bytes_sent == 0
    (row,) = listing.index(source, containers[0], str(tmp_path))
    assert row["rows"] == 400
    assert {member["caption"] for member in row["members"]} == {"words"}
    assert server.bytes_sent <= 1.1 * path.stat().st_size
    server.bytes_sent = 0
    found = listing.members(row)
    assert sources.read(found[7:9]) == [parts["007.jpg"], parts["008.jpg"]]
    for _ in range(3000):  # the server counts after it has sent
        if server.bytes_sent == 40_000:
            break
        time.sleep(0.02)
    assert server.bytes_sent == 40_000


def test_large_members_are_not_read_for_their_headers(server: RangeServer, tmp_path: Path):
    path = tar(server.folder / "a.tar", {f"{n}.jpg": bytes(20 << 20) for n in range(3)})
    source = WebDatasetSource(path=f"{server.url}/a.tar")
    containers, _ = listing.containers(source)
    list(listing.index(source, containers[0], str(tmp_path)))
    assert server.bytes_sent < 0.5 * path.stat().st_size


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_a_huge_row_group_is_read_once_by_all(
    kind: str, server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parquet_module, "HUGE_BYTES", 1 << 20)
    monkeypatch.setattr(parquet_module, "BLOCK", 1 << 17)
    cells = images(200)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = (
        pa.array(cells, pa.binary())
        if kind == "binary"
        else pa.array([{"bytes": cell, "path": "x.jpg"} for cell in cells[:-1]] + [None], struct)
    )
    path = server.folder / "a.parquet"
    pq.write_table(pa.table({"image": column, "text": ["words"] * 200}), path)
    source = ParquetSource(path=f"{server.url}/a.parquet", caption="text")
    run = tmp_path / "run"
    rows = listed(source, run)
    found = members(rows)
    workers = [sources.read(found[start::8], str(run)) for start in range(8)]
    answers = [workers[n % 8][n // 8] for n in range(200)]
    assert answers[:-1] == cells[:-1]
    assert answers[-1] == cells[-1] if kind == "binary" else "null" in str(answers[-1])
    assert server.bytes_sent <= 1.25 * path.stat().st_size
    assert all(not entry.path.startswith(str(run)) for entry in found)
    (run / "listing").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moved").rename(tmp_path / "elsewhere" / "listing")
    assert sources.read(found[:3], str(tmp_path / "elsewhere")) == cells[:3]


def test_a_huge_row_group_of_pairs_is_split_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet_module, "HUGE_BYTES", 1 << 20)
    cells = images(100)
    table = {"s": cells, "e": cells[::-1], "m": [*cells[:60], *[None] * 40], "i": ["do it"] * 100}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    columns = {"source": "s", "edited": "e", "mask": "m", "instruction": "i"}
    source = PairsSource(path=str(tmp_path / "a.parquet"), layout="parquet", columns=columns)
    rows = listed(source, tmp_path / "run")
    found = members(rows)
    assert pairs.read(found[58:62], str(tmp_path / "run")) == [
        PairImages(cells[n], cells[99 - n], cells[n] if n < 60 else None) for n in range(58, 62)
    ]
    assert len(list((tmp_path / "run" / "listing").glob("split-*.tar"))) == 3
    again = listed(source, tmp_path / "run")
    assert members(again) == found


def test_pairs_of_each_layout_survive_the_table(tmp_path: Path):
    parts = {f"{n}.{part}": f"{n}{part}".encode() for n in range(3) for part in ("source.jpg", "edited.jpg", "txt")}
    tar(tmp_path / "a.tar", parts)
    columns = {"source": "source.jpg", "edited": "edited.jpg", "instruction": "txt"}
    source = PairsSource(path=str(tmp_path / "a.tar"), layout="webdataset", columns=columns, licence="CC0")
    found = members(listed(source, tmp_path / "run"))
    assert found == list(pairs.pairs(source))
    assert pairs.read(found) == [PairImages(f"{n}source.jpg".encode(), f"{n}edited.jpg".encode()) for n in range(3)]
