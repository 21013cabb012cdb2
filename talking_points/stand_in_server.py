"""A program that serves the OpenAI protocol as ``vllm serve`` and ``llama-server`` do, without a model.

``STANDIN`` in its environment says what goes wrong: ``never`` (does not become ready), ``dies``, ``dies-at-length``
(with the cause far above the end of the log), ``other-model``, ``prints-key``, ``open`` (asks for no key),
``crash-once=FILE`` (ends at a request unless the file is there), ``linger-once=FILE`` (so too, but closes its port
first and ends seconds later), ``taken`` (says that its port is in use). A prompt with the word POISON ends it always.
Its answer repeats the prompt's last word, or is that of ``STANDIN_ANSWER``. It stands in for a model in rehearsals and
tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULT = os.environ.get("STANDIN", "")


class Handler(BaseHTTPRequestHandler):
    """Models, version, and chat completions."""

    model = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/version":
            self.answer({"version": "0.0.stand-in"})
        elif self.admitted():
            self.answer({"data": [{"id": self.model, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.admitted():
            return
        prompt = str(body["messages"][-1]["content"])
        kind, _, file = FAULT.partition("=")
        fragile = kind in ("crash-once", "linger-once") and "fragile" in prompt and not Path(file).exists()
        if "POISON" in prompt or fragile:
            if file:
                Path(file).touch()
            if kind == "linger-once":
                self.close_connection = True
                self.server.shutdown()
                return
            print("RuntimeError: the engine core died", flush=True)
            os._exit(1)
        text = os.environ.get("STANDIN_ANSWER") or f"An answer about {prompt.split()[-1]}"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.answer({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 4}})

    def admitted(self) -> bool:
        """Whether the request carries the key; answers 401 where not."""
        if FAULT == "open" or self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self.answer({"error": "Unauthorized"}, 401)
        return False

    def answer(self, value: object, status: int = 200) -> None:
        """Send a JSON value."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing for each request."""


def main() -> None:
    """Serve until told to stop."""
    words = argparse.ArgumentParser()
    words.add_argument("verb", nargs="?")
    words.add_argument("positional", nargs="?")
    words.add_argument("--model")
    words.add_argument("--host", required=True)
    words.add_argument("--port", type=int, required=True)
    words.add_argument("--served-model-name", "--alias", dest="name")
    given, rest = words.parse_known_args()
    print(f"stand-in of {given.name}, pid {os.getpid()}, options {rest}", flush=True)
    if "PIDS" in os.environ:
        engine = subprocess.Popen(["sleep", "300"], start_new_session=True)
        Path(os.environ["PIDS"]).write_text(json.dumps([os.getpid(), engine.pid]))
    if FAULT == "prints-key":
        print(f"api_key={os.environ['VLLM_API_KEY']} and {os.environ['VLLM_API_KEY']}", flush=True)
    if FAULT == "dies-at-length":
        print(
            "(EngineCore pid=7) ERROR [registry.py:1120] ModuleNotFoundError: No module named 'torchvision'", flush=True
        )
        print("    a frame above\n" * 30, flush=True)
    if FAULT.startswith("dies") or FAULT == "prints-key":
        sys.exit("CUDA out of memory: this is the last line")
    if FAULT.startswith("taken"):
        _, _, file = FAULT.partition("=")
        if not Path(file).exists():
            Path(file).touch()
            sys.exit("OSError: [Errno 98] Address already in use")
    if FAULT == "never":
        time.sleep(300)
    Handler.model = "somebody/else" if FAULT == "other-model" else given.name
    with ThreadingHTTPServer((given.host, given.port), Handler) as server:
        server.serve_forever()
    time.sleep(8)  # only a server that lingers comes here, for longer than its client tries again


if __name__ == "__main__":
    main()
