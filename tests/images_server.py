"""A real HTTP server on loopback that answers `POST /v1/images/edits`: with edits, or as the test tells it, with
statuses, rubbish, bodies that end early or never, and hang-ups."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image, ImageOps


@dataclass
class Form:
    """One request as it arrived."""

    fields: dict
    files: dict
    headers: Message

    @property
    def image(self):
        return Image.open(io.BytesIO(self.files["image"]))

    @property
    def mask(self):
        """[height, width] true where the edit belongs."""
        return np.asarray(Image.open(io.BytesIO(self.files["mask"])))[:, :, 3] == 0


@dataclass
class Sent:
    """One response."""

    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    length: int | None = None
    """The Content-Length that is claimed; null: the true one."""
    after_s: float = 0.0
    hang_up: bool = False


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def b64(data, **more):
    """The usual answer."""
    return Sent(json.dumps({"data": [{"b64_json": base64.b64encode(data).decode()}], **more}).encode())


def url(address):
    return Sent(json.dumps({"data": [{"url": address}]}).encode())


def problem(status, code, message="no", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Sent(json.dumps({"error": {"code": code, "message": message}}).encode(), status, named)


def inverted(form):
    return b64(png(ImageOps.invert(form.image.convert("RGB"))))


class Server:
    def __init__(self):
        self.url, self.forms, self.got, self.times, self.at_once, self.most_at_once = "", [], [], [], 0, 0
        self.lock = threading.Lock()


@contextmanager
def serving(edit: Callable[[Form], Sent] = inverted, get: Callable[[str], Sent] = lambda path: Sent(b"{}")):
    """The server while the block runs. `edit` and `get` are called in a thread per request."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.got.append((self.path, self.headers))
            self.send(get(self.path))

        def do_POST(self):
            body = (
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Length"]
                else self.chunks()
            )
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            form = Form({}, {}, self.headers)
            for part in message_from_bytes(head + body).get_payload():
                name = part.get_param("name", header="content-disposition")
                data = part.get_payload(decode=True)
                if part.get_filename():
                    form.files[name] = data
                else:
                    form.fields[name] = data.decode()
            with server.lock:
                server.forms.append(form)
                server.times.append(time.monotonic())
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                sent = edit(form)
            finally:
                with server.lock:
                    server.at_once -= 1
            self.send(sent)

        def chunks(self):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def send(self, sent):
            time.sleep(sent.after_s)
            if sent.hang_up:
                self.connection.close()
                self.close_connection = True
                return
            try:
                self.send_response(sent.status)
                for name, value in sent.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent.body) if sent.length is None else sent.length))
                self.end_headers()
                self.wfile.write(sent.body)
                if sent.length is not None:
                    self.close_connection = True
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *args):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, address):
            pass

    httpd = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
