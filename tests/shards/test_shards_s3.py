"""Shards and sources in an object store: a real S3 server, also behind a proxy that misbehaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import object_store
import pytest
from object_store import faulty, use
from shard_pairs import make_pair, write_pairs

from crispedit.outcome import is_transient
from crispedit.pipelines import sources
from crispedit.pipelines.building import listing
from crispedit.pipelines.sources import FolderSource, WebDatasetSource
from crispedit.shards import storage
from crispedit.shards.export import export
from crispedit.shards.read import read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.reshard import repack
from crispedit.shards.verify import verify

PAIRS = [make_pair(str(i)) for i in range(6)] + [make_pair(str(i), "remove", masked=False) for i in range(4)]


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A place of the test's own."""
    return f"{object_store.bucket(monkeypatch, s3_server)}/{request.node.name}"  # brackets and all


def test_a_set_is_written_read_and_verified_in_a_bucket(bucket: str, tmp_path: Path):
    write_pairs(tmp_path / "here", PAIRS, 3)
    write_pairs(f"{bucket}/set", PAIRS, 3)
    names = {
        path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*") if path.is_file()
    }
    system, inner = storage.filesystem(f"{bucket}/set")
    assert {name.removeprefix(inner + "/") for name in system.find(inner)} == names
    for name in names:
        assert system.cat_file(f"{inner}/{name}") == (tmp_path / "here" / name).read_bytes(), name
    cache = Cache(tmp_path / "cache")
    with read_shards(f"{bucket}/set", decode=False, cache=cache) as there:
        assert sorted(pair.key for pair in there) == sorted(pair.key for pair in PAIRS)
    assert verify(f"{bucket}/set", True, 2, cache).problems == []


def test_an_earlier_plan_is_swept_and_a_set_without_manifest_is_unfinished(bucket: str, tmp_path: Path):
    write_pairs(f"{bucket}/set", PAIRS, 2)
    write_pairs(f"{bucket}/set", PAIRS, 5)
    assert storage.names(f"{bucket}/set", ".tar") == {
        *(f"crispedit-add-00000{n}.tar" for n in range(2)),
        "crispedit-remove-000000.tar",
    }
    assert len(storage.names(f"{bucket}/set/index", ".parquet")) == 3
    storage.remove(f"{bucket}/set/manifest.json")
    with pytest.raises(ValueError, match="unfinished"):
        read_shards(f"{bucket}/set", cache=Cache(tmp_path))


def test_merge_and_export_to_a_bucket(bucket: str, tmp_path: Path):
    write_pairs(tmp_path / "one", PAIRS[:6], 3)
    write_pairs(tmp_path / "two", PAIRS[4:], 3)
    cache = Cache(tmp_path / "cache")
    given = [str(tmp_path / "one"), str(tmp_path / "two")]
    local = repack(given, tmp_path / "out", 4, 0, {}, cache)
    there = repack(given, f"{bucket}/out", 4, 0, {}, cache)
    assert there == local
    again = repack(given, f"{bucket}/out", 4, 0, {}, cache)
    assert again == local
    with pytest.raises(ValueError, match="over one of its sources"):
        repack([f"{bucket}/out"], f"{bucket}/out", 4, 0, {}, cache)
    for kind in ("hf", "folder"):
        export(f"{bucket}/out", kind, tmp_path / kind, cache)
        export(f"{bucket}/out", kind, f"{bucket}/{kind}", cache)
        system, inner = storage.filesystem(f"{bucket}/{kind}")
        found = {name.removeprefix(inner + "/") for name in system.find(inner)}
        assert found == {p.relative_to(tmp_path / kind).as_posix() for p in (tmp_path / kind).rglob("*") if p.is_file()}
        with pytest.raises(ValueError, match="not an empty folder"):
            export(f"{bucket}/out", kind, f"{bucket}/{kind}", cache)


def test_a_write_that_breaks_off_leaves_nothing(bucket: str):
    def broken() -> None:
        with storage.replaced(f"{bucket}/x") as out:
            out.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not storage.exists(f"{bucket}/x")
    with storage.replaced(f"{bucket}/deep/er/x") as out:
        out.write(b"whole")
    assert storage.read_bytes(f"{bucket}/deep/er/x") == b"whole"
    assert storage.size(f"{bucket}/deep/er/x") == 5
    storage.remove(f"{bucket}/deep/er/x")
    assert storage.size(f"{bucket}/deep/er/x") is None
    storage.remove(f"{bucket}/deep/er/x")


@pytest.mark.parametrize("fault", ["503", "reset", "cut"])
def test_a_store_that_fails_now_and_then_loses_nothing(
    fault: str, s3_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def every_fifth(number: int, method: str, path: str) -> str | None:
        return fault if number % 5 == 4 and (fault != "cut" or method == "GET") else None

    write_pairs(tmp_path / "here", PAIRS, 3)
    with faulty(s3_server, monkeypatch, every_fifth) as proxy:
        write_pairs(f"{bucket}/set", PAIRS, 3)
        with read_shards(f"{bucket}/set", decode=False, cache=Cache(tmp_path / "cache")) as there:
            assert len(list(there)) == len(PAIRS)
        source = WebDatasetSource(path=f"{bucket}/set")
        containers, _ = listing.containers(source)
        rows = [row for one in containers for row in listing.index(source, one, str(tmp_path))]
        found = [member for row in rows for member in listing.members(row)]
        assert all(isinstance(data, bytes) for data in sources.read(found))
        assert proxy.faults[fault] > 5
    system, _ = storage.filesystem(bucket)
    for path in (tmp_path / "here").rglob("*.*"):
        there = f"{bucket}/set/{path.relative_to(tmp_path / 'here').as_posix()}"
        assert system.cat_file(there) == path.read_bytes()


def test_bytes_that_are_damaged_on_the_way_are_noticed(
    s3_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_pairs(f"{bucket}/set", PAIRS, 3)

    def shards(number: int, method: str, path: str) -> str | None:
        return "corrupt" if method == "GET" and path.partition("?")[0].endswith(".tar") else None

    with faulty(s3_server, monkeypatch, shards):
        with read_shards(f"{bucket}/set", decode=False, on_damage="skip", cache=Cache(tmp_path)) as there:
            assert len(list(there)) < len(PAIRS)
            assert there.damaged


def test_faults_that_stay_may_pass_and_others_do_not(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch):
    system = use(monkeypatch, s3_server)
    for name in ("a.jpg", "b.jpg"):
        system.pipe(f"{bucket}/photos/{name}", name.encode())
    entries = sources.entries(FolderSource(path=f"{bucket}/photos"))
    monkeypatch.setattr(type(system), "retries", 1)
    down = True
    with faulty(s3_server, monkeypatch, lambda number, method, path: "503" if down and "b.jpg" in path else None):
        good, throttled = sources.read(entries)
        assert good == b"a.jpg"
        assert isinstance(throttled, OSError)
        assert is_transient(throttled)
        down = False
        assert sources.read(entries) == [b"a.jpg", b"b.jpg"]


def test_a_place_that_cannot_be_listed_is_one_sentence(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch):
    for place, words in (("s3://no-such-bucket/x", "there is no file"), (f"{bucket}/none", "there is no file")):
        with pytest.raises(ValueError, match=rf"^source\.path: .*{words}"):
            sources.entries(FolderSource(path=place))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(ValueError, match=r"^source\.path: .* cannot be listed: PermissionError"):
        sources.entries(FolderSource(path=f"{bucket}/x"))


def test_without_the_package_there_is_one_sentence():
    code = (
        "import sys; sys.modules['s3fs'] = None; from crispedit.pipelines import cli;"
        "sys.exit(cli.main(['step', 'curate', 'embedded', 'source.path=s3://bucket/photos', 'run=' + sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, "/nonexistent"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'crispedit[s3]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
