"""A small chat server as a command, for tests of servers that a part starts itself: `python managed_server.py PORT
FOLDER`. It answers {"name": "cat"} after a while, writes its pid into the folder, and hangs or dies as files there
say."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, folder = int(sys.argv[1]), Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(body["messages"])
        if "kills you" in text:
            os._exit(9)
        time.sleep(0.05)
        if (folder / "hangs").exists():
            (folder / "hangs").unlink()
            time.sleep(3600)
        choice = {"message": {"content": '{"name": "cat"}'}, "finish_reason": "stop"}
        self.answer({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
        (folder / f"answered-{os.getpid()}").touch()

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


if (folder / "broken").exists():
    print("CUDA out of memory, as it were", flush=True)
    sys.exit(3)
(folder / f"pid-{os.getpid()}").touch()
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
