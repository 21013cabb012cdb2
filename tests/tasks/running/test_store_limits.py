"""A store that answers what no store would: endless pages, names, contents; each ends with a message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from commands import outputs
from talking_points.config import ConfigError
from tasks.running.storage import Storage

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

from tasks.running import store_limits  # noqa: E402

PAGE = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>{}'
    "<IsTruncated>{}</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>"
)
NAME = "<Contents><Key>f/{}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>3</Size></Contents>"


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            KINDS[self.server.kind](self)  # type: ignore[attr-defined]

    do_HEAD = do_GET  # noqa: N815

    def say(self, body: bytes, headers: str = "", status: str = "200 OK", length: int | None = None) -> None:
        length = len(body) if length is None else length
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n".encode())
        self.wfile.write(body if self.command == "GET" else b"")

    def pour(self, headers: str, pause: float = 0, piece: bytes = b"x" * 65536) -> None:
        self.wfile.write(f"HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode())
        while self.command == "GET":
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(pause)


KINDS: dict[str, Callable[[Store], None]] = {
    "pages without end": lambda store: store.say(PAGE.format(NAME.format("a"), "true").encode()),
    "a page without end": lambda store: store.pour(""),
    "a page byte by byte": lambda store: store.pour("", 0.05, b" "),
    "content without end": lambda store: store.pour(""),
    "more content than asked for": lambda store: store.say(b"x" * (80 << 20)),
    "packed content without end": lambda store: store.pour("Content-Encoding: gzip\r\n"),
    "silence": lambda store: time.sleep(5),
    "honest": lambda store: store.say(PAGE.format(NAME.format("a"), "false").encode()),
}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Storage]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def served(kind: str) -> Storage:
        server.kind = kind  # type: ignore[attr-defined]
        return Storage("s3://points/f")

    s3fs.S3FileSystem.clear_instance_cache()
    yield served
    server.shutdown()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("kind", "read", "message"),
    [
        ("pages without end", "names", "more than 40 pages of names"),
        ("a page without end", "names", "answer has more than 1 MiB"),
        ("a page byte by byte", "names", "took more than 1 seconds"),
        ("content without end", "read_bytes", "content without a length"),
        ("packed content without end", "read_bytes", "content without a length"),
        ("more content than asked for", "read_bytes", "83,886,080 bytes of an object where at most 67,108,865 bytes"),
        ("more content than asked for", "open", "bytes of an object where at most"),
    ],
)
def test_a_store_without_end_is_given_up(
    serve: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch, kind: str, read: str, message: str
) -> None:
    monkeypatch.setattr(store_limits, "ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr(store_limits, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(store_limits, "PAGES", 40)
    storage = serve(kind)
    calls: dict[str, Callable[[], object]] = {
        "names": storage.names,
        "read_bytes": lambda: storage.read_bytes("a"),
        "open": lambda: storage.fs.open(storage.path("a"), "rb").read(100),
    }
    begun = time.monotonic()
    with pytest.raises(store_limits.StoreError, match=message):
        calls[read]()
    assert time.monotonic() - begun < 30


def test_an_honest_store_is_read(serve: Callable[[str], Storage]) -> None:
    assert serve("honest").names() == ["a"]


def test_a_silent_store_is_given_up(serve: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    serve("silence")
    assert outputs._STORE_PATIENCE == 10
    monkeypatch.setattr(outputs, "_STORE_PATIENCE", 0.3)
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"out of reach \(no answer in time\)"):
        outputs.open_output("s3://points/f")
    assert time.monotonic() - begun < 4
