"""Which weights a name stands for, against a Hub that answers and one that does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from talking_points.descriptions.model_identity import ModelIdentity, identify_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path.partition("?")[0] in ("/api/models/org/known", "/api/models/org/known/revision/v1")
        body = json.dumps({"id": "org/known", "sha": COMMIT} if known else {"error": "not found"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with hub() as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: HfApi(endpoint=endpoint))
        yield


def test_a_branch_and_a_tag_are_resolved_to_a_commit(online: None) -> None:
    assert identify_model("org/known") == ModelIdentity(COMMIT, True)
    assert identify_model("org/known", "v1") == ModelIdentity(COMMIT, True)


def test_what_nobody_knows_stays_as_configured_and_unresolved(online: None) -> None:
    assert identify_model("org/unknown", "main") == ModelIdentity("main", False)
    assert identify_model("org/known", "v2") == ModelIdentity("v2", False)
    assert identify_model("not a hub id, but a name on a server") == ModelIdentity(None, False)
    assert identify_model("/nowhere/llama.gguf", "main") == ModelIdentity("main", False)


def test_without_the_hub_the_downloaded_snapshot_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--known"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert identify_model("org/known", "main") == ModelIdentity(COMMIT, True)
    assert identify_model("org/other", "main") == ModelIdentity("main", False)


def test_a_folder_is_named_by_its_content(tmp_path: Path) -> None:
    def write(name: str, config: str, weights: bytes) -> str | None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(config)
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "notes.txt").write_text(name)
        identity = identify_model(str(folder), "main")
        assert identity.resolved
        return identity.revision

    first = write("a", '{"layers": 2}', b"12")
    assert first is not None
    assert first.startswith("sha256:")
    assert first == write("b", '{"layers": 2}', b"12")
    assert len({first, write("c", '{"layers": 3}', b"12"), write("d", '{"layers": 2}', b"13")}) == 3


def test_a_gguf_file_is_named_by_its_size_and_head(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    first = identify_model(str(file))
    file.write_bytes(b"GGUF" + bytes(101))
    assert first.resolved
    assert identify_model(str(file)) != first
