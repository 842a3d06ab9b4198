"""Globs, braces and URLs, and the bounded cache of remote shards."""

import functools
import http.server
import threading
from pathlib import Path

import fsspec
import pytest
from shard_pairs import make_pair, write_pairs

from crispedit.shards.damage import Damage
from crispedit.shards.read import read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.storage import expand

PAIRS = [make_pair(str(i)) for i in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    write_pairs(folder, PAIRS, 3)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []

    def log_message(self, *args):
        Quiet.requests.append(self.path)


@pytest.fixture
def url(folder: Path):
    """A real HTTP server over the set."""
    Quiet.requests.clear()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_braces_and_globs(tmp_path: Path):
    assert expand("a-{000..002}.tar") == ["a-000.tar", "a-001.tar", "a-002.tar"]
    assert expand("{9..10}-{x,y}") == ["9-x", "9-y", "10-x", "10-y"]
    for name in ("b.tar", "a.tar", "odd[1].tar"):
        (tmp_path / name).touch()
    assert expand(str(tmp_path / "?.tar")) == [str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]
    assert expand(str(tmp_path / "odd[1].tar")) == [str(tmp_path / "odd[1].tar")]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_reads_over_http(url: str, folder: Path, tmp_path: Path, workers: int):
    cache = Cache(tmp_path / "cache")
    options = {"decode": workers > 0, "workers": workers, "cache": cache}
    with read_shards(url, **options) as remote, read_shards(folder, decode=workers > 0) as local:
        for _ in range(2):
            assert [pair.key for pair in remote] == [pair.key for pair in local]
    fetched = [path for path in Quiet.requests if path.endswith(".tar")]
    assert set(fetched) == {f"/crispedit-add-00000{i}.tar" for i in range(4)}
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 4


def test_the_cache_stays_within_its_bound(url: str, folder: Path, tmp_path: Path):
    sizes = [path.stat().st_size for path in sorted(folder.glob("*.tar"))]
    cache = Cache(tmp_path, max_bytes=max(sizes) * 2)
    most = 0
    reader = read_shards(url, decode=False, cache=cache)
    for pair, want in zip(reader, read_shards(folder, decode=False), strict=True):
        assert pair.source_jpeg == want.source_jpeg
        most = max(most, sum(path.stat().st_size for path in tmp_path.glob("*.tar")))
    assert max(sizes) < most <= max(sizes) * 2
    newest = cache.local(f"{url}/crispedit-add-000003.tar", None)
    assert newest.exists()


def test_memory_filesystem_globs(folder: Path, tmp_path: Path):
    system = fsspec.filesystem("memory")
    system.put(str(folder), "/bucket", recursive=True)
    paths = expand("memory://bucket/*.tar")
    assert [path.rsplit("/", 1)[1] for path in paths] == sorted(path.name for path in folder.glob("*.tar"))
    keys = [pair.key for pair in read_shards("memory://bucket", decode=False, cache=Cache(tmp_path))]
    assert sorted(keys) == sorted(pair.key for pair in PAIRS)
    system.rm("/bucket", recursive=True)


def test_a_shard_cut_off_in_transfer_is_not_cached(url: str, tmp_path: Path):
    cache = Cache(tmp_path)
    with pytest.raises(OSError, match="were expected"):
        cache.local(f"{url}/crispedit-add-000000.tar", 10)
    assert list(tmp_path.glob("*.tar")) == []


def test_what_is_not_there(url: str, tmp_path: Path):
    with pytest.raises(ValueError, match="not a shard of this set"):
        read_shards(f"{url}/nothing.tar", cache=Cache(tmp_path))
    with pytest.raises(Damage, match="missing_shard"):
        read_shards("memory://void/nothing.tar", cache=Cache(tmp_path))
    with pytest.raises(ValueError, match="no such file or folder"):
        read_shards("memory://void", cache=Cache(tmp_path))
