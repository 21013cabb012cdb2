"""Nobody waits for what does not answer, at the end of the program neither."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from commands import orchestrator
from talking_points.config import ConfigError

HANGING = """
import time
from talking_points.network import answer_within
try:
    answer_within(0.1, lambda: time.sleep(100))
except TimeoutError:
    print("given up")
print(answer_within(10, lambda: "answered"))
try:
    answer_within(10, lambda: 1 / 0)
except ZeroDivisionError:
    print("raised")
"""


def test_a_program_ends_without_what_it_gave_up() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["given", "up", "answered", "raised"]


def test_a_server_of_prefect_that_never_answers_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within ten seconds, unless Prefect's own setting for slow servers says otherwise."""
    assert orchestrator._PATIENCE == 10
    monkeypatch.setattr(orchestrator, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{hole.getsockname()[1]}/api")
        for given, waited in (("", "0.2"), ("0.3", "0.3")):
            monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", given)
            with pytest.raises(
                ConfigError, match=rf"found none that answers \(no answer within {waited} s; .*waits longer"
            ):
                orchestrator.find_configured_server()
        monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "soon")
        with pytest.raises(ConfigError, match="expected seconds above zero, such as 60, found 'soon'"):
            orchestrator.find_configured_server()


@pytest.mark.parametrize("says", ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nContent-Type: text/json\r\n\r\n"])
def test_a_server_of_prefect_whose_answer_has_no_end(monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Headers byte by byte are given up; what follows them is not read."""
    monkeypatch.setattr(orchestrator, "_PATIENCE", 0.3)
    monkeypatch.delenv("PREFECT_API_REQUEST_TIMEOUT", raising=False)

    def pour() -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as connection, suppress(OSError):
                    connection.sendall(says.encode())
                    for _ in range(200):
                        connection.sendall(b"x")
                        time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=pour, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.getsockname()[1]}/api")
        begun = time.monotonic()
        with nullcontext() if "json" in says else pytest.raises(ConfigError, match=r"no answer within 0\.3 s"):
            orchestrator.find_configured_server()
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "url", ["nonsense", "127.0.0.1:4200/api", "http://127.0.0.1:port/api", "ftp://x/api", "http://[x"]
)
def test_an_address_of_a_server_that_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(ConfigError, match=r"PREFECT_API_URL: expected an address such as"):
        orchestrator.find_configured_server()


@pytest.mark.parametrize("profiles", ["active = ", "profiles = 3", "profiles.x = 3\nactive = 'x'"])
def test_profiles_of_prefect_that_are_none(profiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "profiles.toml"))
    (tmp_path / "profiles.toml").write_text(profiles)
    with pytest.raises(ConfigError, match="expected profiles of Prefect in"):
        orchestrator.find_configured_server()


@pytest.mark.parametrize("status", [200, 404])
def test_the_page_of_a_server_is_not_its_api(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied from the browser lacks ``/api``."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ConfigError, match="the address of the API ends with /api"):
            orchestrator.find_configured_server()
        server.shutdown()
