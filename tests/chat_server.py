"""A real HTTP server on loopback that speaks OpenAI's chat completions: it answers what the test tells it to, or is
slow, fails, hangs up and talks rubbish."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Said:
    """One response of the server: the assistant's words, or a status, a raw body or a hang-up in their place."""

    content: str | list | None = None
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: str | None = None
    hang_up: bool = False
    after_s: float = 0.0
    refusal: str | None = None
    finish_reason: str = "stop"
    usage: dict | None = None
    thoughts: dict = field(default_factory=dict)
    """Fields of the message beside its content."""


@dataclass
class Asked:
    """One request as it arrived."""

    body: dict
    headers: Message
    """Read whatever their case."""

    @property
    def text(self):
        """The words of the conversation's last message."""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "\n".join(part["text"] for part in content if part["type"] == "text")

    @property
    def is_hello(self):
        return '{"ready": true}' in self.text

    @property
    def images(self):
        """The JPEG data URLs of the conversation, in order."""
        contents = [m["content"] for m in self.body["messages"] if not isinstance(m["content"], str)]
        return [c["image_url"]["url"] for content in contents for c in content if c["type"] == "image_url"]


class Server:
    def __init__(self, reply):
        self.reply, self.asked, self.at_once, self.most_at_once = reply, [], 0, 0
        self.lock = threading.Lock()

    @property
    def spec(self):
        """What a recipe writes to use this server."""
        return {"backend": "openai", "model": "tiny", "base_url": self.url, "retries": 3, "timeout_s": 20}


@contextmanager
def serving(reply: Callable[[Asked], Said | str]):
    """The server while the block runs. `reply` is called in a thread per request."""
    server = Server(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = Asked(body, self.headers)
            with server.lock:
                server.asked.append(asked)
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                said = reply(asked)
            finally:
                with server.lock:
                    server.at_once -= 1
            self.respond(Said(said) if isinstance(said, str) else said)

        def respond(self, said):
            time.sleep(said.after_s)
            if said.hang_up:
                self.close_connection = True
                return
            message = {"role": "assistant", "content": said.content, "refusal": said.refusal, **said.thoughts}
            choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
            whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]}
            if said.usage is not None:
                whole["usage"] = said.usage
            data = (json.dumps(whole) if said.body is None else said.body).encode()
            try:
                self.send_response(said.status)
                for name, value in {"Content-Type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):  # the client did not wait
                self.close_connection = True

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
