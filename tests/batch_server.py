"""A local server with the batch API of OpenAI: files, batches and their answers, right or wrong as a test wants."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fault_server import MODEL, right_answer

Line = dict[str, Any]


def answer_line(line: Line, text: str | None = None, finish: str = "stop") -> Line:
    """The output line of one request."""
    written = right_answer(int(line["body"]["seed"])) if text is None else text
    choice = {"index": 0, "message": {"role": "assistant", "content": written}, "finish_reason": finish}
    body = {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    return {"id": "r", "custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


@dataclass
class BatchServer:
    """``ends(n)`` is the status that the n-th batch ends with, ``answers(n, lines)`` its output lines.

    ``looks`` is how often a batch is looked at before it has ended. ``lost`` names calls ("batches", "files") whose
    next answer is lost although the call took effect.
    """

    ends: Callable[[int], str] = lambda number: "completed"
    answers: Callable[[int, list[Line]], list[Line | bytes]] = lambda number, lines: [answer_line(x) for x in lines]
    errors: Callable[[int, list[Line]], list[Line | bytes]] = lambda number, lines: []
    failure: dict[str, Any] = field(default_factory=lambda: {"code": "invalid", "message": "out of luck"})
    looks: int = 0
    lists_batches: bool = True
    unknown: int = 0
    """Batches that are refused because their file, uploaded a moment ago, is not known yet."""
    lost: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.released.set()

    def asked(self) -> list[str]:
        """Custom ids of all batches, in the order in which they were created."""
        return [line["custom_id"] for batch in self.batches.values() for line in self.lines(batch)]

    def lines(self, batch: dict[str, Any]) -> list[Line]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches)
        # What OpenAI's own client, and gateways that are made of it, expect of a batch.
        form = {"object": "batch", "created_at": 0, "endpoint": "", "completion_window": "24h", "errors": None}
        form |= {"output_file_id": None, "error_file_id": None}
        batch = {**form, **body, "id": f"batch-{number}", "number": number, "status": "in_progress", "looked": 0}
        self.batches[batch["id"]] = batch
        at_once = sum(batch["status"] == "in_progress" for batch in self.batches.values())
        self.most_at_once = max(self.most_at_once, at_once)
        return batch

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looked"] += 1
        if batch["status"] == "in_progress" and self.released.is_set() and batch["looked"] > self.looks:
            self.end(batch, self.ends(batch["number"]))
        return batch

    def end(self, batch: dict[str, Any], status: str) -> None:
        batch["status"] = status
        if status == "failed":
            batch["errors"] = {"data": [self.failure]}
            return
        lines = self.lines(batch)
        for name, write in (("output_file_id", self.answers), ("error_file_id", self.errors)):
            written = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in write(batch["number"], lines)]
            if written:
                batch[name] = self.keep(b"\n".join(written) + b"\n")


@contextmanager
def serving_batches(server: BatchServer) -> Iterator[BatchServer]:
    """Run the server on a free port of 127.0.0.1; sets ``server.url``, the base URL for a client."""

    class Handler(_Handler):
        at = server

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    at: BatchServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path.removeprefix("/v1/"), parse_qs(urlsplit(self.path).query)
        with self.at.lock:
            self.at.calls.append(f"GET {path}")
            if path == "models":
                self._send({"data": [{"id": MODEL}]})
            elif path == "batches" and self.at.lists_batches:
                entries = list(reversed(self.at.batches.values()))
                names = [batch["id"] for batch in entries]
                start = names.index(query["after"][0]) + 1 if "after" in query else 0
                page = entries[start : start + 2]  # short pages, so that they are turned
                self._send({"object": "list", "data": page, "has_more": start + 2 < len(entries)})
            elif (found := re.fullmatch(r"batches/(.+)", path)) and found[1] in self.at.batches:
                self._send(self.at.look(self.at.batches[found[1]]))
            elif (found := re.fullmatch(r"files/(.+)/content", path)) and found[1] in self.at.files:
                self._send_bytes(200, self.at.files[found[1]])
            else:
                self._send({"error": {"message": "not found"}}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path.removeprefix("/v1/")
        with self.at.lock:
            self.at.calls.append(f"POST {path}")
            if path == "files":
                name = self.at.keep(_file_in(body, str(self.headers["Content-Type"])))
                form = {"object": "file", "created_at": 0, "filename": "x.jsonl", "purpose": "batch"}
                answer: Any = {**form, "id": name, "bytes": len(self.at.files[name]), "status": "processed"}
            elif path == "batches" and self.at.unknown:
                self.at.unknown -= 1
                self._send({"error": {"message": f"Cannot find file {json.loads(body)['input_file_id']}"}}, 400)
                return
            elif path == "batches":
                answer = self.at.create(json.loads(body))
            elif found := re.fullmatch(r"batches/(.+)/cancel", path):
                self.at.end(self.at.batches[found[1]], "cancelled")
                answer = self.at.batches[found[1]]
            else:
                self._send({"error": {"message": "not found"}}, 404)
                return
            if path in self.at.lost:
                self.at.lost.remove(path)
                self.connection.close()
                self.close_connection = True
                return
        self._send(answer)

    def _send(self, value: Any, status: int = 200) -> None:
        self._send_bytes(status, json.dumps(value).encode())

    def _send_bytes(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _file_in(body: bytes, kind: str) -> bytes:
    boundary = kind.partition("boundary=")[2].encode()
    part = next(part for part in body.split(b"--" + boundary) if b'name="file"' in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
