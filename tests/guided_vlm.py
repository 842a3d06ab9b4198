"""A chat server as a command: the tiny vision-language model of the tests, held to the schema that it is asked for.

    python guided_vlm.py PORT MODEL FOLDER

Where the schema leaves a choice, the model's own logits after the conversation make it, so an answer depends on what is
asked and shown, and on nothing else. FOLDER gets a file `pid-PID` when it starts to listen and grows it by a byte an
answer.
"""

import base64
import io
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from crispedit import torchvision_ops

torchvision_ops.declare()

from PIL import Image  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

port, model, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
torch.set_num_threads(1)
processor = AutoProcessor.from_pretrained(model)
network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
lock = threading.Lock()
served = folder / f"pid-{os.getpid()}"


def shown(part):
    if part["type"] == "text":
        return part
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return {"type": "image", "image": Image.open(io.BytesIO(data)).convert("RGB")}


def choices(schema):
    if "enum" in schema:
        return schema["enum"]
    if schema["type"] == "integer":
        return list(range(schema.get("minimum", 0), schema.get("maximum", 2) + 1))
    return {"boolean": [True, False], "string": ["", "sky", "hills"]}[schema["type"]]


def answer(body):
    messages = [
        {
            "role": message["role"],
            "content": [{"type": "text", "text": message["content"]}]
            if isinstance(message["content"], str)
            else [shown(part) for part in message["content"]],
        }
        for message in body["messages"]
    ]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = network(**inputs).logits[0, -1]
    said = {}
    for at, (name, schema) in enumerate(body["response_format"]["json_schema"]["schema"]["properties"].items()):
        options = choices(schema)
        said[name] = options[int(logits[40 * at : 40 * at + len(options)].argmax())]
    return json.dumps(said), inputs["input_ids"].shape[1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            text, tokens = answer(body)
        with served.open("a") as out:
            out.write(".")
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": tokens, "completion_tokens": len(text)}
        self.send({"choices": [choice], "usage": usage})

    def send(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


served.touch()
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
