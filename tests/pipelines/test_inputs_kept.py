"""No input disappears: whatever lies in a source is an entry, or is counted and shown."""

from __future__ import annotations

import codecs
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_inputs import encode, photo

from crispedit.normalise import normalise
from crispedit.pipelines.building import listing as listing_module
from crispedit.pipelines.sources import (
    FolderSource,
    ParquetSource,
    WebDatasetSource,
    check_no_secrets,
    entries,
    listing,
    read,
)
from crispedit.pipelines.sources import pairs as pairs_module
from crispedit.pipelines.sources.pairs import PairImages, PairsSource, pairs
from crispedit.shards import journal
from crispedit.shards import tar as tar_module

CASES = Path(__file__).parents[2] / ".." / "shared" / "cases"
COLUMNS = {"source": "source", "edited": "edited", "instruction": "instruction"}
IN_TAR = {"source": "source.jpg", "edited": "edited.jpg", "instruction": "txt"}


def case(name: str) -> Path:
    if not (CASES / name).exists():
        pytest.skip(f"the case {name} is not here")
    return CASES / name


def jpeg(name: str) -> bytes:
    return encode(photo(name, 32, 24), "JPEG", quality=80)


def tar(path: Path, *members: tuple[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(data, bytes) else data
            if isinstance(data, bytes):
                info.size = len(data)
            out.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


# Folders


def test_the_case_of_names_left_out():
    found = listing(FolderSource(path=str(case("folder-names-left-out") / "photos")))
    assert [entry.uri for entry in found.entries] == ["a.jpg", "b.mpo", "c", "d.jpg_large", "e.jpg_size=2"]
    for data in read(found.entries):
        assert isinstance(data, bytes)
        assert normalise(data, max_pixels=10**8, max_short_side_px=None).format == "jpeg"


def test_unknown_names_are_told_by_their_first_bytes(tmp_path: Path):
    images = ["a", "b.jpg?size=2", "c.JPG_LARGE", "d.0001", "e.mpo", "f.jpg~", "photo.v1.2"]
    others = {"g": b"hello", "h.dat": b"\0" * 99, "i.txt": b"hello", "j": b""}
    for name in images:
        (tmp_path / name).write_bytes(jpeg(name))
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / ".hidden.jpg").write_bytes(jpeg("h"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = listing(FolderSource(path=str(tmp_path)))
    assert sorted([*images, "gone"]) == [entry.uri for entry in found.entries]
    assert [entry.uri for entry in found.entries if entry.error] == ["gone"]
    assert found.skipped.text() == ("skipped: 6 files (2 without suffix, 1 .dat, 1 .txt, 1 hidden, 1 pipe or device)")
    total = len(found.entries) + found.skipped.total()
    assert total == len(os.listdir(tmp_path))


def test_the_users_own_suffixes_are_taken_at_their_word(tmp_path: Path):
    for name in ("a.png", "b", "c.jpg"):
        (tmp_path / name).write_bytes(jpeg(name))
    found = listing(FolderSource(path=str(tmp_path), suffixes=(".png",)))
    assert [entry.uri for entry in found.entries] == ["a.png"]
    assert found.skipped == {"without suffix": 1, ".jpg": 1}


def test_brackets_and_braces_in_the_names_of_folders(tmp_path: Path):
    for folder in ("photos [raw]", "a{b,c}", "plain"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(folder.encode())
    for folder in ("photos [raw]", "a{b,c}"):
        for path in (tmp_path / folder, tmp_path / folder / "*.jpg", tmp_path / folder / "x.jpg"):
            assert read(entries(FolderSource(path=str(path)))) == [folder.encode()], path
    (tmp_path / "one[1].jpg").write_bytes(b"1")
    assert read(entries(FolderSource(path=str(tmp_path / "one[[]1].jpg")))) == [b"1"]
    with pytest.raises(ValueError, match=r"nothing matches this pattern \(\[2\] stands for .* write \[\[\]2\]"):
        entries(FolderSource(path=str(tmp_path / "one[2]*.jpg")))
    with pytest.raises(ValueError, match=r"\*\.webp: nothing matches this pattern$"):
        entries(FolderSource(path=str(tmp_path / "*.webp")))


# Tars


def test_the_case_of_a_hard_link():
    found = entries(WebDatasetSource(path=str(case("tar-hard-link") / "a.tar")))
    assert sorted(entry.uri for entry in found) == ["a.tar#001.jpg", "a.tar#002.jpg", "a.tar#003.jpg"]
    answers = dict(zip([entry.uri for entry in found], read(found), strict=True))
    assert answers["a.tar#002.jpg"] == answers["a.tar#001.jpg"]


def test_links_in_a_tar_are_what_they_lead_to(tmp_path: Path):
    path = tar(
        tmp_path / "a.tar",
        link("early.jpg", "d/2.jpg"),
        ("1.jpg", b"one"),
        ("./d/2.jpg", b"two"),
        link("hard.jpg", "1.jpg", tarfile.LNKTYPE),
        link("d/soft.jpg", "../1.jpg"),
        link("d/again.jpg", "soft.jpg"),
        link("out.jpg", "../../etc/passwd"),
        link("absolute.jpg", "/etc/passwd"),
        link("circle.jpg", "circle.jpg"),
        link("text.txt", "nowhere.txt"),
        link("folder", "d"),
        link("through.jpg", "folder/2.jpg"),
        ("__MACOSX/._1.jpg", b"what macOS puts beside each file"),
    )
    found = listing(WebDatasetSource(path=str(path)))
    answers = {e.uri.partition("#")[2]: a for e, a in zip(found.entries, read(found.entries), strict=True)}
    good = {name: data for name, data in answers.items() if isinstance(data, bytes)}
    assert good == {
        "1.jpg": b"one",
        "./d/2.jpg": b"two",
        "early.jpg": b"two",
        "hard.jpg": b"one",
        "d/soft.jpg": b"one",
        "d/again.jpg": b"one",
        "through.jpg": b"two",
    }
    for name in ("out.jpg", "absolute.jpg", "circle.jpg"):
        assert "which is not a file in the tar" in str(answers[name])
    assert found.skipped == {".txt": 1, "link to a folder": 1, "hidden": 1}


def test_devices_and_members_without_suffix(tmp_path: Path):
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    path = tar(tmp_path / "a.tar", ("1", jpeg("1")), ("2.bin2", b"no"), ("3", b"no"), ("null", device))
    found = listing(WebDatasetSource(path=str(path)))
    assert [entry.uri for entry in found.entries] == ["a.tar#1"]
    assert found.skipped == {".bin2": 1, "without suffix": 1, "device": 1}


def test_a_member_with_holes_is_an_error_that_says_so(tmp_path: Path):
    info = tarfile.TarInfo("1.jpg")
    info.size = 3
    info.pax_headers = {"GNU.sparse.map": "0,1,9,2", "GNU.sparse.size": "11", "GNU.sparse.name": "1.jpg"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as out:
        out.addfile(info, io.BytesIO(b"abc"))
        whole = tarfile.TarInfo("2.jpg")
        whole.size = 3
        whole.pax_headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": "3", "GNU.sparse.name": "2.jpg"}
        out.addfile(whole, io.BytesIO(b"xyz"))
    holes, good = read(entries(WebDatasetSource(path=str(tmp_path / "a.tar"))))
    assert "stored with holes" in str(holes)
    assert good == b"xyz"


def test_hostile_headers_end_as_errors_in_little_memory(tmp_path: Path):
    first = tarfile.TarInfo("1.jpg")
    first.size = 3
    good = first.tobuf() + b"one".ljust(512, b"\0")
    bomb = tarfile.TarInfo("x")
    bomb.type, bomb.size = tarfile.XHDTYPE, 1 << 40
    long_name = tarfile.TarInfo("x")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 50 << 20
    small = tarfile.TarInfo("x")
    small.type, small.size = tarfile.XHDTYPE, 512
    record = b"512 a=" + b"b" * 505 + b"\n"
    tails = {
        "terabyte": bomb.tobuf(),
        "name": long_name.tobuf() + b"n" * (50 << 20),
        "chain": (small.tobuf() + record) * 3000 + first.tobuf(),
    }
    for name, tail in tails.items():
        (tmp_path / f"{name}.tar").write_bytes(good + tail + bytes(1024))
        one, damage = read(entries(WebDatasetSource(path=str(tmp_path / f"{name}.tar"))))
        assert one == b"one"
        assert "damaged after byte" in str(damage), name


def test_a_tar_of_too_many_members_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tar_module, "MOST_MEMBERS", 3)
    path = tar(tmp_path / "a.tar", *[(f"{n}.jpg", b"x") for n in range(5)])
    answers = read(entries(WebDatasetSource(path=str(path))))
    assert answers[:3] == [b"x"] * 3
    assert "more than 3 members" in str(answers[3])


def test_captions_by_dotted_names_and_those_without_a_photograph(tmp_path: Path):
    path = tar(
        tmp_path / "a.tar",
        ("v1.0_a.txt", b"first"),
        ("v1.0_a.jpg", b"a"),
        ("v1.0_b.jpg", b"b"),
        ("v1.0_b.txt", b"second"),
        ("c.source.jpg", b"c"),
        ("c.txt", b"third"),
        ("d.txt", b"alone"),
    )
    found = listing(WebDatasetSource(path=str(path), caption="txt"))
    assert [entry.caption for entry in found.entries] == ["first", "second", "third"]
    assert found.skipped == {"caption without its photograph": 1}


# Texts


def test_the_case_of_a_byte_order_mark():
    path = case("text-byte-order-mark") / "a.tar"
    source = PairsSource(
        path=str(path),
        layout="webdataset",
        columns={"source": "source.jpg", "edited": "edited.jpg", "instruction": "txt"},
    )
    assert [pair.instruction for pair in pairs(source)] == ["add a dog"]


ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_as_windows_tools_write_them(encoding: str, tmp_path: Path):
    def written(text: str) -> bytes:
        return ENCODINGS[encoding] + text.encode(encoding)

    words = "füge einen Hund hinzu"
    members = [("1.source.jpg", b"s"), ("1.edited.jpg", b"e"), ("1.txt", written(words + " \r\n"))]
    path = tar(tmp_path / "a.tar", *members)
    (pair,) = pairs(PairsSource(path=str(path), layout="webdataset", columns=IN_TAR))
    assert pair.instruction == words
    (entry,) = entries(
        WebDatasetSource(path=str(tar(tmp_path / "b.tar", ("1.txt", written(words)), ("1.jpg", b"1"))), caption="txt")
    )
    assert entry.caption == words
    note = written(json.dumps({"caption": words}, ensure_ascii=False))
    (entry,) = entries(
        WebDatasetSource(path=str(tar(tmp_path / "c.tar", ("1.json", note), ("1.jpg", b"1"))), caption="json")
    )
    assert entry.caption == words
    row = {"source": "s.jpg", "edited": "e.jpg", "instruction": "\ufeff" + words}
    rows = "\r\n".join([json.dumps(row, ensure_ascii=False), "", json.dumps(row), " "]) + "\r\n"
    (tmp_path / "x.jsonl").write_bytes(written(rows))
    listed = list(pairs(PairsSource(path=str(tmp_path), layout="jsonl", columns=COLUMNS)))
    assert [(pair.uri, pair.instruction, pair.error) for pair in listed] == [
        ("x.jsonl#0", words, None),
        ("x.jsonl#1", words, None),
    ]
    (tmp_path / "x.jsonl").unlink()
    (tmp_path / "x.json").write_bytes(written(json.dumps([row])))
    (pair,) = pairs(PairsSource(path=str(tmp_path), layout="jsonl", columns=COLUMNS))
    assert pair.instruction == words


def test_texts_in_columns_lose_their_marks(tmp_path: Path):
    table = {"image": [b"1", b"2"], "text": ["\ufeffa dog\r\nand a cat ", "\ufeff"]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    found = entries(ParquetSource(path=str(tmp_path), caption="text"))
    assert [entry.caption for entry in found] == ["a dog\nand a cat", None]


def test_brackets_without_end_are_that_rows_error(tmp_path: Path):
    deep = b"[" * 200_000
    members = [("1.source.jpg", b"s"), ("1.edited.jpg", b"e"), ("1.json", deep), ("2.jpg", b"x")]
    path = tar(tmp_path / "a.tar", *members)
    columns = {**IN_TAR, "instruction": "json.words"}
    listed = list(pairs(PairsSource(path=str(path), layout="webdataset", columns=columns)))
    assert listed[0].error is not None
    assert entries(WebDatasetSource(path=str(path), caption="json"))[0].caption is None


# Samples of pairs


def of_tar(path: Path, **columns: str) -> list[pairs_module.ImportedPair]:
    return list(pairs(PairsSource(path=str(path), layout="webdataset", columns={**IN_TAR, **columns})))


def test_keys_with_dots_are_pairs_of_their_own(tmp_path: Path):
    members = [
        (f"x/v1.0_{n}.{part}", f"{n}{part}".encode()) for n in "ab" for part in ("source.jpg", "edited.jpg", "txt")
    ]
    listed = of_tar(tar(tmp_path / "a.tar", *members))
    assert [(pair.uri, pair.instruction) for pair in listed] == [("a.tar#x/v1.0_a", "atxt"), ("a.tar#x/v1.0_b", "btxt")]
    assert pairs_module.read(listed)[1] == PairImages(b"bsource.jpg", b"bedited.jpg")


def test_what_stands_beside_a_sample_is_no_pair(tmp_path: Path):
    parts = {"extra.txt": b"more", "source.jpg": b"s", "edited.jpg": b"e", "txt": b"words", "cls": b"1"}
    path = tar(tmp_path / "a.tar", *[(f"1.{name}", data) for name, data in parts.items()])
    (pair,) = of_tar(path)
    assert (pair.uri, pair.instruction) == ("a.tar#1", "words")


def test_extensions_that_collide_are_no_loss(tmp_path: Path):
    sample = [("1.source.jpg", b"s"), ("1.edited.jpg", b"e"), ("1.txt", b"words")]
    second = [("1.SOURCE.jpg", b"S"), ("1.edited.jpg", b"E"), ("1.txt", b"other words")]
    listed = of_tar(tar(tmp_path / "a.tar", *sample, *second))
    assert [(pair.uri, pair.instruction) for pair in listed] == [("a.tar#1", "words"), ("a.tar#1#2", "other words")]
    assert pairs_module.read(listed)[1] == PairImages(b"S", b"E")


def test_columns_without_a_type(tmp_path: Path):
    table = pa.table({"s": [b"s"], "e": [b"e"], "i": ["do it"], "m": pa.nulls(1), "c": pa.nulls(1)})
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {"source": "s", "edited": "e", "instruction": "i", "mask": "m", "source_caption": "c"}
    listed = list(pairs(PairsSource(path=str(tmp_path), layout="parquet", columns=columns)))
    assert listed[0].source_caption is None
    assert pairs_module.read(listed) == [PairImages(b"s", b"e")]
    (answer,) = read(entries(ParquetSource(path=str(tmp_path), image="m", caption="c")))
    assert "null" in str(answer)


def test_half_a_surrogate_pair_is_no_end_of_a_build(tmp_path: Path):
    """JSON can escape it, as a cut emoji; no table can hold it."""
    for name in "ab":
        (tmp_path / name).write_bytes(jpeg(name))
    first = json.dumps({"source": "a", "edited": "b", "instruction": "make it \ud83d green"})
    second = json.dumps({"source": "a\ud83d", "edited": "b", "instruction": "make it green"})
    (tmp_path / "train.jsonl").write_text(f"{first}\n{second}\n")
    source = PairsSource(path=str(tmp_path), layout="jsonl", columns=COLUMNS)
    (container,), _ = listing_module.containers(source)
    rows = list(listing_module.index(source, container, ""))
    journal.commit(tmp_path / "run", listing_module.table(source), rows)
    good, bad = listing_module.members(rows[0])
    assert good.instruction == "make it ? green"
    assert good.error is None
    assert "surrogates not allowed" in bad.error


# Links and absolute paths


def of_lines(folder: Path, **more: str) -> list[PairImages | Exception]:
    source = PairsSource(path=str(folder), layout="jsonl", columns=COLUMNS, **more)
    return pairs_module.read(list(pairs(source)))


def line(source: object, edited: object) -> str:
    return json.dumps({"source": str(source), "edited": str(edited), "instruction": "do it"}) + "\n"


def test_a_hub_snapshot_of_links_is_read(tmp_path: Path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    (snapshot / "images").mkdir(parents=True)
    cells = [{"bytes": None, "path": "images/a.jpg"}]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, struct)}), blobs / "p")
    blob = {"a.jpg": b"a", "b.jpg": b"b", "train.jsonl": line("images/a.jpg", "images/b.jpg").encode()}
    for name, data in blob.items():
        (blobs / name[0]).write_bytes(data)
        place = snapshot / (f"images/{name}" if name.endswith("jpg") else name)
        place.symlink_to(os.path.relpath(blobs / name[0], place.parent))
    (snapshot / "data.parquet").symlink_to("../../blobs/p")
    assert of_lines(snapshot) == [PairImages(b"a", b"b")]
    assert read(entries(FolderSource(path=str(snapshot)))) == [b"a", b"b"]
    assert read(entries(ParquetSource(path=str(snapshot)))) == [b"a"]


def test_images_on_another_disk_behind_a_link(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "disk" / "a.jpg").write_bytes(b"a")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "x.jsonl").write_text(line("images/a.jpg", "images/../images/a.jpg"))
    assert of_lines(tmp_path / "set") == [PairImages(b"a", b"a")]


def test_absolute_paths_inside_the_folder(tmp_path: Path):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(folder)
    (folder / "images" / "a b.jpg").write_bytes(b"a")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    image = folder / "images" / "a b.jpg"
    forms = [
        image,
        tmp_path / "alias" / "images" / "a b.jpg",
        f"file://{folder}/images/a%20b.jpg",
        "images\\a b.jpg",
        "./images/a b.jpg",
    ]
    (folder / "x.jsonl").write_text("".join(line(form, image) for form in forms))
    for path in (folder, tmp_path / "alias"):
        assert of_lines(path) == [PairImages(b"a", b"a")] * len(forms)
    outside = [
        (tmp_path / "secret.jpg", "outside the folder"),
        ("../secret.jpg", "leaves the folder"),
        ("images/../../secret.jpg", "leaves the folder"),
        ("..\\secret.jpg", "leaves the folder"),
        (f"{folder}/../secret.jpg", "outside the folder"),
        (f"{folder}er/x.jpg", "outside the folder"),
        ("https://example.com/a.jpg", "is a URL"),
        ("a\0.jpg", "zero byte"),
        ("/etc/passwd", "outside the folder"),
    ]
    (folder / "x.jsonl").write_text("".join(line(form, image) for form, _ in outside))
    answers = of_lines(folder)
    for answer, (form, words) in zip(answers, outside, strict=True):
        assert words in str(answer), form
    (folder / "x.jsonl").write_text(line(tmp_path / "secret.jpg", tmp_path / "secret.jpg"))
    assert of_lines(folder, images=str(tmp_path)) == [PairImages(b"secret", b"secret")]


# Secrets


@pytest.mark.parametrize(
    "path",
    [
        "s3://me:hunter2@bucket/x",
        "s3://AKIAIOSFODNN7EXAMPLE@bucket/x",
        "https://hunter2@example.com/x.tar",
        "https://example.com/x.tar?X-Amz-Signature=hunter2",
        "https://example.com/x.tar?sv=1&sig=hunter2",
        "https://example.com/x.tar?AWSAccessKeyId=hunter2",
        "https://example.com/x.tar#access_token=hunter2",
        "simplecache::https://example.com/x.tar?token=hunter2",
        "zip://x.tar::https://me:hunter2@example.com/x.zip",
    ],
)
def test_secrets_are_refused_and_not_shown(path: str):
    with pytest.raises(ValueError, match=r"^source\.path holds a ") as raised:
        check_no_secrets("source.path", path)
    assert "hunter2" not in str(raised.value)
    assert "AKIA" not in str(raised.value)


@pytest.mark.parametrize(
    "path",
    [
        "photos/me:you@home",
        "s3://bucket/x",
        "sftp://me@host/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "https://example.com/x.tar?download=1&keyword=tree",
        "hf://datasets/me/data@main/x",
    ],
)
def test_what_is_no_secret_is_accepted(path: str):
    check_no_secrets("source.path", path)
