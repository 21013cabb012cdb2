"""Servers that are no Hub: every repository's owner is the name of what they do. Run as a program, it asks them all."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

COMMIT = "a" * 40
HEADERS = f'ETag: "{COMMIT}"\r\nX-Repo-Commit: {COMMIT}\r\n'


class Hostile(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        if self.path == "/api/repos/create":  # this alone goes well, so that what follows it is asked
            name = f"{json.loads(body)['organization']}/name"
            return self.say(json.dumps({"url": f"http://{self.headers['Host']}/datasets/{name}", "name": name}))
        kind = next((name for name in KINDS if f"/{name}/" in self.path), "")
        with suppress(OSError):  # the client hangs up, as it should
            KINDS[kind](self) if kind else self.say("{}")
        return None

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def raw(self, text: str | bytes) -> None:
        self.wfile.write(text if isinstance(text, bytes) else text.encode("latin-1"))

    def say(self, body: str | bytes, headers: str = "", status: str = "200 OK") -> None:
        body = body if isinstance(body, bytes) else body.encode()
        self.raw(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{HEADERS}{headers}\r\n")
        if self.command != "HEAD":
            self.raw(body)

    def listing(self, name: str, file: Callable[[], None]) -> None:
        """A repository with one file, of that name, which ``file`` sends."""
        if "/resolve/" in self.path:
            return file()
        entry = {"type": "file", "path": name, "oid": COMMIT, "size": 10**12, "rfilename": name}
        if "/tree/" in self.path:
            return self.say(json.dumps([entry]))
        return self.say(json.dumps({"id": "org/name", "sha": COMMIT, "private": False, "siblings": [entry]}))

    def drip(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n{HEADERS}\r\n")
        while self.command != "HEAD":
            self.raw(" ")
            time.sleep(0.02)

    def drip_headers(self) -> None:
        self.raw("HTTP/1.1 200 OK\r\nX: ")
        while True:
            self.raw("a")
            time.sleep(0.02)

    def endless(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{HEADERS}\r\n")
        while self.command != "HEAD":
            self.raw(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    def foreign_names(self) -> None:
        """Headers after which the Hub's library would name files outside its cache."""
        names = f"ETag: {Path.cwd() / 'outside'}\r\nX-Repo-Commit: ../../x\r\n"
        self.raw(f"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{names}\r\n{'' if self.command == 'HEAD' else 'PAR1'}")

    def breaking(self) -> None:
        """A byte, and the connection is gone: each time that the download is taken up again."""
        first = int((self.headers.get("Range") or "bytes=0-").partition("=")[2].partition("-")[0])
        self.raw(f"HTTP/1.1 206 Partial\r\nContent-Length: {10**9 - first}\r\n{HEADERS}\r\n")
        if self.command != "HEAD":
            self.raw("x" * 2000)


DATA = "data/train-00000-of-00001.parquet"
KINDS: dict[str, Callable[[Hostile], None]] = {
    "silent": lambda it: time.sleep(5),
    "drip-headers": Hostile.drip_headers,
    "drip": Hostile.drip,
    "endless": Hostile.endless,
    "redirect": lambda it: it.say("", f"Location: {it.path}\r\n", "302 Found"),
    "elsewhere": lambda it: it.say("", "Location: file:///etc/passwd\r\n", "302 Found"),
    "wait": lambda it: it.say("", "Retry-After: 99999999\r\n", "429 Too Many Requests"),
    "ratelimit": lambda it: it.say("", 'ratelimit: "api";r=0;t=99999999\r\n', "429 Too Many Requests"),
    "pages": lambda it: (
        it.say("[]", f'Link: <http://{it.headers["Host"]}{it.path}>; rel="next"\r\n')
        if "/tree/" in it.path
        else it.listing(DATA, lambda: it.say("{}"))
    ),
    "packed": lambda it: it.say(gzip.compress(b" " * 10**7), "Content-Encoding: gzip\r\n"),
    "html": lambda it: it.say("<html>", "Content-Type: text/html\r\n"),
    "list": lambda it: it.say("[[]]"),
    "null": lambda it: it.say("null"),
    "object": lambda it: it.say("{}"),
    "deep": lambda it: it.say("[" * 100_000),
    "latin": lambda it: it.say(b"\xff\xfe{}"),
    "garbage": lambda it: it.raw(b"\0\xff\r\n\r\n"),
    "closed": lambda it: None,
    "names": lambda it: it.listing("data/../../../../../../outside.parquet", lambda: it.say("PAR1")),
    "etags": lambda it: it.listing(DATA, it.foreign_names),
    "drip-file": lambda it: it.listing(DATA, it.drip),
    "endless-file": lambda it: it.listing(DATA, it.endless),
    "breaking-file": lambda it: it.listing(DATA, it.breaking),
    "wrong-file": lambda it: it.listing(DATA, lambda: it.say("PAR1 and nothing")),
}


def serve() -> str:
    """Run it in the background; returns its address."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{http.server_address[1]}"


def main() -> None:
    """Ask every kind by every way in which the project asks the Hub; prints one line of JSON for each."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    from talking_points import hub_client
    from talking_points.dataset_files import read_dataset
    from talking_points.descriptions.model_identity import identify_model
    from talking_points.publishing.hub import Repository, dataset_folder, explaining

    hub_client.SILENCE = hub_client.ANSWER_SECONDS = hub_client.WINDOW = 0.2
    hub_client.ANSWER_BYTES, hub_client.UNSTATED_BYTES = 1 << 20, 1 << 21
    hub_client.IN_A_ROW.update(pages=20, redirects=5)
    slept: list[float] = []
    for module in (_http, file_download):
        module.time = SimpleNamespace(sleep=slept.append)  # type: ignore
    constants.DOWNLOAD_CHUNK_SIZE = 1000

    def opened(repo: str) -> None:
        with explaining("cannot publish"):
            repository = Repository.connect(repo, "dataset", None)
            _, head = repository.open(private=False)
            repository.paths(head)
            repository.commit("message", {"README.md": "text"}, (), head)
            repository.check(str(head), {"README.md": "text"})

    ways: dict[str, Callable[[str], object]] = {
        "view": dataset_folder,
        "publish": opened,
        "train": lambda repo: read_dataset(repo, "train", ["description"]),
        "stream": lambda repo: list(read_dataset(repo, "train", ["description"], streaming=True)),
        "identify": identify_model,
    }
    for kind in KINDS:
        for way, call in ways.items():
            slept.clear()
            started = time.monotonic()
            try:
                call(f"{kind}/name")
                error = None
            except Exception as caught:
                error = caught
            seconds, names = time.monotonic() - started, [name.__name__ for name in type(error).__mro__]
            print(json.dumps([kind, way, seconds, max(slept, default=0), names, str(error)[:500]]), flush=True)


if __name__ == "__main__":
    main()
