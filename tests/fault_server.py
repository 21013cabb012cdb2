"""A local OpenAI-compatible server that answers right, or wrong in every way a real one does, and remembers it all."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "fake-llava"
RETRY_AFTER = 1
"""Seconds that a 429 asks to wait."""

REASONS = {
    "rate_limit": "rate_limited",
    "error_500": "server_error",
    "hang": "timeout",
    "reset": "connection_lost",
    "malformed_json": "malformed_response",
    "no_choices": "malformed_response",
    "empty": "empty_answer",
    "truncated": "truncated",
}
"""Every fault, and the reason that a row lost to it must be given."""


@dataclass(frozen=True)
class Seen:
    """One request: which it was, when it came and when its answer was out, and the fault it met, or ``right``."""

    seed: int
    digest: str
    kind: str
    came: float
    answered: float


@dataclass
class FaultServer:
    """``fault(seed, attempt)`` names the fault of a request, or ``right``; attempts of a seed count from 0.

    ``held``: while it is set, requests wait for their answers; ``waiting`` counts them.
    """

    fault: Callable[[int, int], str] = lambda seed, attempt: "right"
    delay: float = 0.0
    hang: float = 3.0
    seen: list[Seen] = field(default_factory=list)
    hanging: int = 0
    held: bool = False
    waiting: int = 0
    url: str = ""
    _attempts: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_kind(self, seed: int) -> str:
        with self._lock:
            attempt = self._attempts.get(seed, 0)
            self._attempts[seed] = attempt + 1
        return self.fault(seed, attempt)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Answer nothing for the length of the block."""
        self.held = True
        try:
            yield
        finally:
            self.held = False

    def wait(self) -> None:
        """What goes by before an answer."""
        with self._lock:
            self.waiting += 1
        time.sleep(self.delay)
        while self.held:
            time.sleep(0.02)
        with self._lock:
            self.waiting -= 1

    def remember(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)


def right_answer(seed: int) -> str:
    """The one right text for a request; tells requests apart."""
    draw = random.Random(seed)
    sheen, color, mark = (
        draw.choice(words)
        for words in (
            ("smooth", "rough", "shiny", "matte"),
            ("brown", "gray", "orange", "pale green"),
            ("stripe", "curve", "speckle", "crease"),
        )
    )
    return f"a {sheen}, {color} surface with a faint {mark} of the kind {_word(draw)}"


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("aeiou") if at % 2 else draw.choice("bdfklmnprst") for at in range(10))


@contextmanager
def serving(server: FaultServer) -> Iterator[FaultServer]:
    """Run the server on a free port of 127.0.0.1; sets ``server.url``, the base URL for a client."""

    class Handler(_Handler):
        faults = server

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    faults: FaultServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        came = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seed = int(json.loads(body)["seed"])
        self.faults.wait()
        kind = self.faults.next_kind(seed)
        self._answer(kind, seed)
        digest = hashlib.sha256(body).hexdigest()
        self.faults.remember(Seen(seed, digest, kind, came, time.monotonic()))

    def _answer(self, kind: str, seed: int) -> None:
        text = right_answer(seed)
        if kind == "rate_limit":
            self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": str(RETRY_AFTER)})
        elif kind == "error_500":
            self._send(500, {"error": {"message": "out of luck"}})
        elif kind == "hang":
            self.faults.hanging += 1
            time.sleep(self.faults.hang)
            self.close_connection = True
        elif kind == "reset":
            # Linger for no time: the close sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif kind == "malformed_json":
            self._send_bytes(200, b'{"choices": [{"message": {"content": "a smo')
        elif kind == "no_choices":
            self._send(200, {"choices": [], "usage": {}})
        elif kind == "empty":
            self._complete("", "stop")
        elif kind == "truncated":
            self._complete(text[:9], "length")
        else:
            self._complete(text, "stop")

    def _complete(self, text: str, finish: str) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self._send(200, {"choices": [choice], "usage": usage})

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode(), headers)

    def _send_bytes(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
