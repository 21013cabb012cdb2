"""Whatever answers at HF_ENDPOINT: every way to ask it ends soon, by a documented error, and leaves the cache alone."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.publishing.hostile_hub import KINDS, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_no_server_makes_a_command_hang_or_fail_without_a_word(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": serve(),
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": "hf_localwriter0000",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.publishing.hostile_hub"],
        env=environment,
        cwd=home.parent.parent,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    asked = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(asked) == len(KINDS) * 5
    for kind, way, seconds, slept, names, message in asked:
        case = (kind, way, names[0], message)
        assert seconds < 60, case  # a busy machine starts threads late; without limits it would be for ever
        assert slept <= 61, case
        fine = way == "identify" or (kind, way) == ("wrong-file", "view")
        assert "InputError" in names or "RunError" in names or (fine and names[0] == "NoneType"), case
        assert "hf_localwriter0000" not in message
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(home)]
    assert not outside


def test_everything_that_asks_the_hub_does_so_with_limits() -> None:
    """Each function that calls the Hub's library, or loads a model that may be on the Hub, sets the client first."""
    asks = {"HfApi", "HfFileSystem", "snapshot_download", "hf_hub_download"}
    bounded = ("bounded_hub()", "explaining(", "_reaching(", "unavailable(", "local_files_only=True", "streaming=")
    for path in (ROOT / "talking_points").rglob("*.py"):
        source = path.read_text()
        if "huggingface_hub" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                called = {
                    call.func.id
                    for call in ast.walk(node)
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
                }
                text = ast.get_source_segment(source, node) or ""
                if called & asks and node.name != "connect":  # what it connects is used inside `explaining`
                    assert any(mark in text for mark in bounded), f"{path}: {node.name} asks the Hub without limits"


def test_a_hub_elsewhere_does_not_lead_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    from huggingface_hub import constants

    from talking_points import hub_client

    def ask(endpoint: str, url: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        hub_client._limit_request(httpx2.Request("GET", url))

    for address in ("http://127.0.0.1:4200/api", "http://localhost/", "http://[::1]/", "http://169.254.169.254/"):
        with pytest.raises(httpx2.TransportError, match="was not asked"):
            ask("https://huggingface.co", address)
        ask("http://127.0.0.1:8000", address)
    ask("https://huggingface.co", "https://cdn-lfs.hf.co/x")


def test_a_time_limit_that_was_asked_for_stays() -> None:
    import httpx2

    from talking_points import hub_client

    request = httpx2.Request("GET", "https://huggingface.co", extensions={"timeout": {"connect": 3.0, "read": None}})
    hub_client._limit_request(request)
    assert request.extensions["timeout"] == {"connect": 3.0, "read": 60.0, "write": 60.0, "pool": 60.0}


def test_a_hub_that_never_answers_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen files of a model, six tries for each: without an end to it that would be an hour."""
    import httpx2

    from talking_points import hub_client

    monkeypatch.setattr(hub_client, "SILENCE", 0.1)
    monkeypatch.setattr(hub_client, "_silent", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0), backlog=16) as hole, hub_client._client() as client:
        address = f"http://127.0.0.1:{hole.getsockname()[1]}/x"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        for _ in range(hub_client.UNANSWERED):
            with pytest.raises(httpx2.ReadTimeout):
                client.get(address)
        with pytest.raises(httpx2.TransportError, match="not asked again") as refused:
            client.get(address)
        assert hub_client.silent_hubs() == "; 127.0.0.1 takes connections and does not answer"
        assert not isinstance(refused.value, httpx2.TimeoutException | httpx2.NetworkError)  # which are tried again
        monkeypatch.setattr(hub_client, "REST", 0.0)
        with pytest.raises(httpx2.ReadTimeout):
            client.get(address)
