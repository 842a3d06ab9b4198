"""A file server over HTTP that serves parts of files, as object stores do, counts what it sends, and may be slow."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from pathlib import Path


class RangeServer:
    """Serves a folder on loopback inside a `with` block."""

    def __init__(self, folder: Path, delay_s: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.delay_s = folder, delay_s
        self.bytes_sent = 0
        self.requests = 0
        self._lock = threading.Lock()

    def __enter__(self) -> RangeServer:
        handler = functools.partial(_Handler, self)
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def count(self, sent: int) -> None:
        with self._lock:
            self.bytes_sent += sent
            self.requests += 1


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: RangeServer, *given: object) -> None:
        self.files = server
        super().__init__(*given)  # type: ignore[arg-type]

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        time.sleep(self.files.delay_s)
        path = self.files.folder / self.path.lstrip("/").partition("?")[0]
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        first, last = 0, size - 1
        asked = self.headers.get("Range")
        if asked is not None:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end) if end else size - 1, size - 1)
        self.send_response(200 if asked is None else 206)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(max(0, last - first + 1)))
        if asked is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if not body:
            return
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left > 0 and (chunk := file.read(min(left, 1 << 18))):
                try:
                    self.wfile.write(chunk)
                except ConnectionError:
                    break
                left -= len(chunk)
        self.files.count(last - first + 1 - left)

    def log_message(self, *_: object) -> None:
        pass
