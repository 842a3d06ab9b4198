"""Sources, on real folders, tars, parquets, an in-memory filesystem and an HTTP server."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_inputs import MAX_PIXELS, encode, photo, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from crispedit.normalise import Refused, Unreadable, normalise
from crispedit.outcome import is_transient
from crispedit.pipelines.sources import (
    Entry,
    FolderSource,
    ParquetSource,
    WebDatasetSource,
    entries,
    escape,
    listing,
    read,
    unescape,
)
from crispedit.pipelines.sources.pairs import AnySource
from crispedit.shards.storage import expand_braces


def tar(path: Path, members: list[tuple[str, bytes]], **options) -> Path:
    with tarfile.open(path, "w", **options) as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def jpeg(name: str) -> bytes:
    return encode(photo(name, 32, 24), "JPEG", quality=80)


def uris(found: list[Entry]) -> list[str]:
    return [entry.uri for entry in found]


# Every kind


def test_a_section_is_parsed_by_its_kind():
    parse = TypeAdapter(AnySource).validate_python
    assert isinstance(parse({"kind": "folder", "path": "x"}), FolderSource)
    assert isinstance(parse({"kind": "webdataset", "path": "x"}), WebDatasetSource)
    assert parse({"kind": "parquet", "path": "x", "image": "photo"}).image == "photo"
    with pytest.raises(ValidationError, match="colour"):
        parse({"kind": "folder", "path": "x", "colour": 1})
    with pytest.raises(ValidationError, match="expected tags"):
        parse({"kind": "bucket", "path": "x"})


@pytest.mark.parametrize("source", [FolderSource, WebDatasetSource, ParquetSource])
def test_no_such_place(source, tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no .*nowhere"):
        entries(source(path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("source", [FolderSource, WebDatasetSource, ParquetSource])
def test_nothing_of_the_kind_says_what_is_there(source, tmp_path: Path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"no photographs .*1 \.txt"):
        entries(source(path=str(tmp_path)))


def test_entries_survive_a_parquet(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"1")
    tar(folder / "x.tar", [("a.jpg", b"22")])
    found = entries(FolderSource(path=str(folder), dataset="mine", licence="CC0"))
    found += entries(WebDatasetSource(path=str(folder)))
    pq.write_table(pa.Table.from_pylist([entry.to_row() for entry in found]), tmp_path / "plan.parquet")
    back = [Entry.from_row(row) for row in pq.read_table(tmp_path / "plan.parquet").to_pylist()]
    assert back == found
    assert read(back) == [b"1", b"22"]
    assert (back[0].dataset, back[0].licence) == ("mine", "CC0")


@given(st.binary(min_size=1, max_size=40))
def test_names_are_escaped_reversibly(raw: bytes):
    name = raw.decode("utf-8", "surrogateescape")
    text = escape(name)
    assert unescape(text) == name
    assert text.encode().decode() == text
    assert "#" not in text
    assert len(text.splitlines()) <= 1


# Folder


def test_every_file_of_the_corpus_ends_as_it_should(tmp_path: Path):
    outcomes = write_corpus(tmp_path)
    found = listing(FolderSource(path=str(tmp_path)))
    ended = {}
    for entry, answer in zip(found.entries, read(found.entries), strict=True):
        try:
            if isinstance(answer, Exception) and is_transient(answer):
                ended[entry.uri] = "transient"
                continue
            if isinstance(answer, Exception):
                raise Unreadable(str(answer))
            normalise(answer, max_pixels=MAX_PIXELS, max_short_side_px=None)
            ended[entry.uri] = "kept"
        except Refused as refused:
            ended[entry.uri] = f"rejected:{refused.reason}"
        except Unreadable:
            ended[entry.uri] = "error"
    assert ended == outcomes
    assert len(outcomes) >= 100
    assert found.skipped == {".txt": 1, "hidden": 1}


def test_the_order_is_of_names_alone(tmp_path: Path):
    names = ["b.jpg", "a/z.jpg", "a.jpg", "Z.jpg", "a/b/c.jpg"]
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    one, two = (entries(FolderSource(path=str(tmp_path / folder))) for folder in ("one", "two"))
    assert uris(one) == uris(two) == sorted(names)
    assert read(one) == [name.encode() for name in sorted(names)]


def test_hidden_files_and_other_suffixes_are_left_alone_and_counted(tmp_path: Path):
    for name in ("a.jpg", ".b.jpg", ".git/c.jpg", "d.json", "e.json", "f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = listing(FolderSource(path=str(tmp_path)))
    assert uris(found.entries) == ["a.jpg"]
    assert found.skipped == {".json": 2, "hidden": 2, "without suffix": 1}


def test_the_suffixes_can_be_chosen(tmp_path: Path):
    for name in ("a.jpg", "b.PNG", "c.source.png"):
        (tmp_path / name).write_bytes(b"x")
    assert uris(entries(FolderSource(path=str(tmp_path), suffixes=(".png",)))) == ["b.PNG", "c.source.png"]


def test_a_linked_folder_is_read_once_by_its_own_name(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.jpg").write_bytes(b"x")
    (tmp_path / "a_link").symlink_to(tmp_path / "real")
    assert uris(entries(FolderSource(path=str(tmp_path)))) == ["real/x.jpg"]


def test_a_link_out_of_the_folder_is_followed(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.jpg").write_bytes(b"x")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "out")
    assert read(entries(FolderSource(path=str(tmp_path / "in")))) == [b"x"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error_row(tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "x.jpg").write_bytes(b"x")
    found = entries(FolderSource(path=str(tmp_path)))
    assert uris(found) == ["closed", "x.jpg"]
    assert "cannot be listed" in str(read(found)[0])


def test_a_file_that_goes_away_is_an_error(tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    found = entries(FolderSource(path=str(tmp_path)))
    (tmp_path / "x.jpg").unlink()
    (answer,) = read(found)
    assert isinstance(answer, OSError)
    assert "x.jpg: No such file" in str(answer)


def test_one_file_and_a_glob(tmp_path: Path):
    for name in ("a.jpg", "b.jpg", "odd[1].jpg"):
        (tmp_path / name).write_bytes(name.encode())
    assert uris(entries(FolderSource(path=str(tmp_path / "b.jpg")))) == ["b.jpg"]
    assert uris(entries(FolderSource(path=str(tmp_path / "[ab].jpg")))) == ["a.jpg", "b.jpg"]
    assert read(entries(FolderSource(path=str(tmp_path / "odd[1].jpg")))) == [b"odd[1].jpg"]


# WebDataset


def test_members_are_read_where_they_lie(tmp_path: Path):
    members = [("x/001.jpg", b"1" * 700), ("x/001.json", b"{}"), ("x/002.png", b"2"), ("x/003.jpg", b"")]
    tar(tmp_path / "a.tar", members)
    found = listing(WebDatasetSource(path=str(tmp_path)))
    assert uris(found.entries) == ["a.tar#x/001.jpg", "a.tar#x/002.png", "a.tar#x/003.jpg"]
    assert read(found.entries[::-1]) == [b"", b"2", b"1" * 700]
    assert found.skipped == {".json": 1}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_member_names(format: int, tmp_path: Path):
    names = ["цветок/花.jpg", "a#b.jpg", "deep/" * 15 + "x.jpg"]
    if format != tarfile.USTAR_FORMAT:
        names += ["y" * 300 + ".jpg", os.fsdecode(b"\xff.jpg")]
    path = tar(tmp_path / "a.tar", [(name, name.encode("utf-8", "replace")) for name in names], format=format)
    found = entries(WebDatasetSource(path=str(path)))
    assert len(set(uris(found))) == len(names)
    assert read(found) == [name.encode("utf-8", "replace") for name in names]


def test_a_name_that_comes_twice_is_two_entries(tmp_path: Path):
    path = tar(tmp_path / "a.tar", [("x.jpg", b"1"), ("x.jpg", b"2")])
    found = entries(WebDatasetSource(path=str(path)))
    assert uris(found) == ["a.tar#x.jpg", "a.tar#x.jpg#2"]
    assert read(found) == [b"1", b"2"]


@pytest.mark.parametrize("extension", ["txt", "json"])
def test_captions_lie_beside(extension: str, tmp_path: Path):
    text = " a red kite \n"
    sidecar = text if extension == "txt" else json.dumps({"caption": text})
    members = [("1." + extension, sidecar.encode()), ("1.jpg", b"1"), ("2.jpg", b"2"), ("3.jpg", b"3")]
    members += [("3." + extension, b"[1]" if extension == "json" else b"  ")]
    found = listing(WebDatasetSource(path=str(tar(tmp_path / "a.tar", members)), caption=extension))
    assert [entry.caption for entry in found.entries] == ["a red kite", None, None]
    assert found.skipped == {}


def test_shards_by_folder_glob_and_braces(tmp_path: Path):
    for n in range(12):
        tar(tmp_path / f"s-{n:02d}.tar", [("x.jpg", str(n).encode())])
    tar(tmp_path / "other.tar", [("x.jpg", b"o")])
    assert len(entries(WebDatasetSource(path=str(tmp_path)))) == 13
    assert len(entries(WebDatasetSource(path=str(tmp_path / "s-*.tar")))) == 12
    found = entries(WebDatasetSource(path=str(tmp_path / "s-{09..11}.tar")))
    assert uris(found) == ["s-09.tar#x.jpg", "s-10.tar#x.jpg", "s-11.tar#x.jpg"]
    assert read(found) == [b"9", b"10", b"11"]


def test_a_shard_that_is_not_there_is_an_error_row(tmp_path: Path):
    tar(tmp_path / "s-0.tar", [("x.jpg", b"0")])
    found = entries(WebDatasetSource(path=str(tmp_path / "s-{0..1}.tar")))
    assert uris(found) == ["s-0.tar#x.jpg", "s-1.tar#"]
    assert "No such file" in str(read(found)[1])


def test_braces():
    assert expand_braces("x-{08..10}.{a,b}") == [f"x-{n}.{c}" for n in ("08", "09", "10") for c in "ab"]
    assert expand_braces("plain") == ["plain"]
    with pytest.raises(ValueError, match="too many"):
        expand_braces("{0..99999999999}")


def test_a_damaged_tar_gives_what_is_before_the_damage_and_an_error(tmp_path: Path):
    whole = tar(tmp_path / "whole.tar", [("1.jpg", b"1" * 600), ("2.jpg", b"2" * 3000), ("3.jpg", b"3")])
    data = whole.read_bytes()
    first_end = 512 + 1024
    damages = {
        "inside_data": (data[: first_end + 2000], ["1.jpg", "2.jpg"]),
        "inside_header": (data[: first_end + 100], ["1.jpg", ""]),
        "between": (data[:first_end], ["1.jpg", ""]),
        "overwritten": (data[:first_end] + b"garbage!" * 64 + data[first_end + 512 :], ["1.jpg", ""]),
        "joined": (data + data, ["1.jpg", "2.jpg", "3.jpg", ""]),
        "empty": (b"", [""]),
        "not_a_tar": (b"hello" * 300, [""]),
    }
    for name, (damaged, members) in damages.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(damaged)
        found = entries(WebDatasetSource(path=str(path)))
        assert uris(found) == [f"{name}.tar#{member}" for member in members]
        answers = read(found)
        assert all(isinstance(answer, bytes) for answer in answers[:-1]), name
        assert isinstance(answers[-1], ValueError), name
        assert f"{name}.tar" in str(answers[-1])


def test_a_compressed_tar_says_what_to_do(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as out:
        out.addfile(tarfile.TarInfo("x.jpg"))
    (answer,) = read(entries(WebDatasetSource(path=str(tmp_path))))
    assert "decompress it" in str(answer)


# Parquet

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(path: Path, column: pa.Array, **options) -> Path:
    captions = [f"caption {n}" for n in range(len(column))]
    pq.write_table(pa.table({"image": column, "text": captions}), path, **options)
    return path


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), IMAGE])
def test_rows_of_several_row_groups(kind: pa.DataType, tmp_path: Path):
    cells = [str(n).encode() for n in range(100)]
    column = pa.array([{"bytes": cell, "path": None} for cell in cells] if kind == IMAGE else cells, kind)
    path = parquet(tmp_path / "a.parquet", column, row_group_size=37)
    found = entries(ParquetSource(path=str(path), caption="text"))
    assert uris(found) == [f"a.parquet#{n}" for n in range(100)]
    assert read(found) == cells
    assert read([found[99], found[3], found[99], found[40]]) == [b"99", b"3", b"99", b"40"]
    assert found[99].caption == "caption 99"
    assert max(entry.row_group for entry in found) == 2


def test_a_path_is_read_beside_the_parquet_and_nowhere_else(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.jpg").write_bytes(b"in")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "data" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    paths = ["in.jpg", "../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "gone.jpg", None]
    column = pa.array([{"bytes": None, "path": path} for path in paths] + [None], IMAGE)
    answers = read(entries(ParquetSource(path=str(parquet(tmp_path / "data" / "a.parquet", column)))))
    assert answers[0] == b"in"
    assert "leaves the folder" in str(answers[1])
    assert "outside the folder" in str(answers[2])
    assert answers[3] == b"secret"  # a link that the folder's owner has put there
    assert "No such file" in str(answers[4])
    for answer in answers[5:]:
        assert isinstance(answer, ValueError)
        assert "null" in str(answer)


def test_a_wrong_column_lists_the_right_ones(tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", pa.array([b"x"]))
    with pytest.raises(ValueError, match=r"source.image: a.parquet has no column 'photo'; it has image \(binary\)"):
        entries(ParquetSource(path=str(path), image="photo"))
    with pytest.raises(ValueError, match=r"source.image: column 'text' of a.parquet is not bytes"):
        entries(ParquetSource(path=str(path), image="text"))
    with pytest.raises(ValueError, match=r"source.caption: column 'image' of a.parquet is not text"):
        entries(ParquetSource(path=str(path), caption="image"))


def test_a_damaged_parquet_is_an_error_row(tmp_path: Path):
    path = parquet(tmp_path / "b.parquet", pa.array([os.urandom(5000)]))
    parquet(tmp_path / "a.parquet", pa.array([b"good"]))
    path.write_bytes(path.read_bytes()[:3000])
    found = entries(ParquetSource(path=str(tmp_path)))
    assert uris(found) == ["a.parquet#0", "b.parquet#"]
    answers = read(found)
    assert answers[0] == b"good"
    assert isinstance(answers[1], ValueError)


def test_a_row_group_that_rots_after_listing_is_its_rows_error(tmp_path: Path):
    cells = [os.urandom(3000) for _ in range(4)]
    path = parquet(tmp_path / "a.parquet", pa.array(cells), row_group_size=2, write_page_checksum=True)
    found = entries(ParquetSource(path=str(path)))
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)  # in the first row group
    path.write_bytes(data)
    answers = read(found)
    assert isinstance(answers[0], OSError)
    assert answers[2:] == cells[2:]


def test_a_row_group_is_decoded_once_by_calls_that_go_forward(tmp_path: Path):
    cells = [str(n).encode() for n in range(200)]
    path = parquet(tmp_path / "a.parquet", pa.array(cells))
    found = entries(ParquetSource(path=str(path)))
    assert read(found[:3]) == cells[:3]
    path.unlink()  # whoever opens the file again will find it gone
    for start in range(3, 200, 4):
        assert read(found[start : start + 4]) == cells[start : start + 4]
    (answer,) = read(found[:1])
    assert isinstance(answer, OSError)


def test_many_row_groups_at_once(tmp_path: Path):
    cells = [str(n).encode() for n in range(60)]
    found = entries(ParquetSource(path=str(parquet(tmp_path / "a.parquet", pa.array(cells), row_group_size=2))))
    for order in (range(60), range(59, -1, -1), [n * 7 % 60 for n in range(60)]):
        assert [read([found[n]])[0] for n in order] == [cells[n] for n in order]
        assert read([found[n] for n in order]) == [cells[n] for n in order]


# Remote


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/bucket", recursive=True)


def test_a_remote_folder_tar_and_parquet(bucket: fsspec.AbstractFileSystem, tmp_path: Path):
    bucket.pipe("/bucket/photos/a.jpg", b"a")
    bucket.pipe("/bucket/photos/deep/b.jpg", b"b")
    bucket.pipe("/bucket/photos/.hidden/c.jpg", b"c")
    bucket.pipe("/bucket/s-0.tar", tar(tmp_path / "s.tar", [("x.jpg", b"x"), ("y.jpg", b"yy")]).read_bytes())
    column = pa.array([{"bytes": b"r", "path": None}, {"bytes": None, "path": "photos/a.jpg"}], IMAGE)
    bucket.pipe("/bucket/t.parquet", parquet(tmp_path / "t.parquet", column).read_bytes())
    folder = entries(FolderSource(path="memory://bucket/photos"))
    assert uris(folder) == ["a.jpg", "deep/b.jpg"]
    shard = entries(WebDatasetSource(path="memory://bucket/s-{0..0}.tar"))
    assert uris(shard) == ["s-0.tar#x.jpg", "s-0.tar#y.jpg"]
    table = entries(ParquetSource(path="memory://bucket/*.parquet"))
    assert uris(table) == ["t.parquet#0", "t.parquet#1"]
    assert read(shard + folder + table) == [b"x", b"yy", b"a", b"b", b"r", b"a"]
    with pytest.raises(ValueError, match="no file"):
        entries(FolderSource(path="memory://bucket/none"))


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do."""

    def do_GET(self):
        path, asked = Path(self.translate_path(self.path)), self.headers.get("Range")
        if asked is None or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, last = asked.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1 if last else len(data)]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(RangeHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_over_http(server: str, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg("a"))
    (tmp_path / "photos" / "b.jpg").write_bytes(jpeg("b"))
    tar(tmp_path / "s.tar", [("x.jpg", jpeg("x")), ("y.jpg", jpeg("y"))])
    parquet(tmp_path / "t.parquet", pa.array([jpeg("t")]))
    found = entries(FolderSource(path=f"{server}/photos/"))
    assert uris(found) == ["a.jpg", "b.jpg"]
    found += entries(WebDatasetSource(path=f"{server}/s.tar"))
    found += entries(ParquetSource(path=f"{server}/t.parquet"))
    assert read(found) == [jpeg(name) for name in "abxyt"]
    (tmp_path / "photos" / "b.jpg").unlink()
    answers = read(found)
    assert isinstance(answers[1], OSError)
    assert "b.jpg" in str(answers[1])
    assert answers[0] == jpeg("a")
