"""Secrets planted wherever one may stand, builds and a publication that fail: none is found afterwards, anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.flows.building import CONFIG
from tests.prefect_database import prefect_home

KEY, PASSWORD, QUERY, OPTION, HUB = (f"planted{name}Secret9" for name in ("Key", "Password", "Query", "Option", "Hub"))


class _Echo(BaseHTTPRequestHandler):
    """Refuses rows, and repeats in its message everything that it was given; ``right`` makes it answer some."""

    protocol_version = "HTTP/1.1"
    right = False
    asked = 0

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked += 1
        if self.right and self.asked % 3:
            message = {"role": "assistant", "content": f"a smooth brown surface, number {self.asked}"}
            return self.send(200, {"choices": [{"message": message, "finish_reason": "stop"}]})
        return self.send(
            400, {"error": {"message": f"{self.headers['Authorization']} {self.path} {body.get('token')}"}}
        )

    def send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def echo() -> Iterator[type[_Echo]]:
    class Handler(_Echo):
        url = ""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    Handler.url = f"127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield Handler
    http.shutdown()
    http.server_close()


def content(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file as text; Parquet is compressed, so its rows and its metadata."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path, f"{table.drop_columns(['image']) if 'image' in table.column_names else table}"
            yield path, f"{table.drop_columns(['image'] if 'image' in table.column_names else []).to_pylist()}"
            yield path, f"{table.schema.metadata}"
        elif path.is_file():
            yield path, path.read_bytes().decode("latin-1")


@pytest.mark.slow
def test_no_planted_secret_is_found_after_failures_and_success(
    drawn: dict[str, Path], echo: Any, tmp_path: Path
) -> None:
    home, output, temporary = tmp_path / "home", tmp_path / "out", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "PREFECT_HOME": prefect_home(home / "prefect"),
        "TMPDIR": str(temporary),
        "MY_KEY": f"{KEY}\n",
        "HF_TOKEN": HUB,
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    endpoint = f"http://user:{PASSWORD}@{echo.url}/v1?key={QUERY}"
    step = {
        "backend": "openai",
        "model": "m",
        "endpoint": endpoint,
        "api_key_env": "MY_KEY",
        "options": {"token": OPTION},
    }
    build = ["build", "--config", CONFIG, "--verbose", "--limit", "12"]
    for name in ("pascal_part116", "ade20k_part234", "partimagenet"):
        build += ["--set", f"sources.{name}.root={drawn.get(name, 'null')}"]
    for setting in (f"output={output}", "verification.max_rejected_share=0.9", f"local_caption={json.dumps(step)}"):
        build += ["--set", setting]

    told = []

    def run(*arguments: str) -> int:
        command = [sys.executable, "-m", "commands.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
        told.append(done.stdout + done.stderr)
        return done.returncode

    assert run(*build) == 1, told
    assert "bad_request" in told[-1]
    echo.right = True
    assert run(*build) == 0, told
    assert run("publish", str(output), "org/name", "--allow-partial") == 1, told
    assert run(*build, "--set", f"local_caption.api_key_env={KEY}", "--set", "seed=x") == 2, told

    rejected = pq.read_table(output / "rejected").to_pylist()
    assert any("***" in row["detail"] for row in rejected), "the server's echo is kept, without the secrets"
    assert (home / "prefect").exists()
    secrets = (KEY, PASSWORD, QUERY, OPTION, HUB)
    found = [(secret, "terminal", text) for secret in secrets for text in told if secret in text]
    found += [(secret, str(path), "") for path, text in content(tmp_path) for secret in secrets if secret in text]
    assert not found
