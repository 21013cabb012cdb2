"""Who may use a page, and that no other site can frame it, be told where it came from, or be redirected to."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, RedirectResponse

from talking_points.audit.address import AddressError, bind
from talking_points.audit.guard import Guard

ROOT = Path(__file__).resolve().parents[2]


async def page(scope: Any, receive: Any, send: Any) -> None:
    """Answers, and redirects as frameworks do: to an address made of the request."""
    target = dict(scope["headers"]).get(b"x-target")
    response = RedirectResponse(target.decode("latin-1")) if target else PlainTextResponse("page")
    await response(scope, receive, send)


def ask(
    *headers: tuple[bytes, bytes], path: str = "/", query: bytes = b"", token: str | None = None
) -> tuple[int, dict[str, str]]:
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(errors="replace"), "query_string": query,
        "headers": [(name.lower(), value) for name, value in headers], "scheme": "http", "server": ("127.0.0.1", 80),
        "http_version": "1.1", "root_path": "", "client": ("127.0.0.1", 1),
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(Guard(page, token)(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}


HOST = (b"Host", b"127.0.0.1:8085")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([HOST], 200),
        ([(b"Host", b"localhost")], 200),
        ([(b"Host", b"LOCALHOST:1")], 200),
        ([(b"Host", b"[::1]:8085")], 200),
        ([HOST, (b"Origin", b"http://127.0.0.1:8085")], 200),
        ([(b"Host", b"evil.example")], 403),
        ([(b"Host", b"127.0.0.1.evil.example")], 403),
        ([HOST, (b"Origin", b"http://evil.example")], 403),
        ([HOST, (b"Origin", b"null")], 403),
        ([HOST, (b"Origin", b"http://127.0.0.1:9999")], 403),
        ([HOST, (b"Origin", b"http://127.0.0.1:8085"), (b"Origin", b"http://evil.example")], 403),
        ([], 400),
        ([HOST, HOST], 400),
        ([HOST, (b"Host", b"evil.example")], 400),
        ([(b"Host", b"")], 400),
        ([(b"Host", b"[::1")], 400),
        ([(b"Host", b"127.0.0.1:port")], 400),
        ([(b"Host", b"127.0.0.1:99999")], 400),
        ([(b"Host", b"127.0.0.1/path")], 400),
        ([(b"Host", b"user@127.0.0.1")], 400),
        ([(b"Host", b"127.0.0.1\xff")], 400),
        ([(b"Host", b"127.0.0.1\x00")], 400),
        ([HOST, (b"Origin", b"http://[")], 400),
        ([HOST, (b"Origin", b"http://127.0.0.1:x")], 400),
    ],
)
def test_who_is_answered(headers: list[tuple[bytes, bytes]], status: int) -> None:
    found, answered = ask(*headers)
    assert found == status
    assert "frame-ancestors 'none'" in answered["content-security-policy"]
    assert answered["x-frame-options"] == "DENY"
    assert answered["referrer-policy"] == "no-referrer"
    assert answered["x-content-type-options"] == "nosniff"


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_any_header_is_answered(host: bytes, origin: bytes, cookie: bytes) -> None:
    for token in (None, "secret"):
        status, _ = ask((b"Host", host), (b"Origin", origin), (b"Cookie", cookie), token=token)
        assert status in (200, 400, 403)


@pytest.mark.parametrize("path", ["/\x1b[2J", "/\x1b]0;title\x07", "/a\nb", "/\x9b31m", "/\u202e", "/\ud800", "/\0"])
def test_no_page_writes_into_the_terminal(path: str) -> None:
    """An image of another site's page can ask for any path of this one, and what is not found is told."""
    assert ask(HOST, path=path)[0] == 400
    assert ask(HOST, path="/image/ä b")[0] == 200


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "///evil.example/a", "/check"])
def test_the_token_is_kept_without_leaving_the_site(path: str) -> None:
    status, answered = ask(HOST, path=path, query=b"token=secret&person=ann", token="secret")
    assert status == 303
    location = answered["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert "secret" not in location
    assert "HttpOnly" in answered["set-cookie"]
    assert ask(HOST, path=path, query=b"token=wrong", token="secret")[0] == 403
    assert ask(HOST, (b"Cookie", b"page_token_8085=secret"), path=path, token="secret")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8085", "127.0.0.1:8086", "127.0.0.1", "[::1]:8085"])
def test_pages_at_two_ports_keep_a_token_each(host: str) -> None:
    """A browser sends the cookies of a machine to all of its ports."""
    other = SimpleCookie(ask((b"Host", b"127.0.0.1:9000"), query=b"token=other", token="other")[1]["set-cookie"])
    kept = SimpleCookie(ask((b"Host", host.encode()), query=b"token=secret", token="secret")[1]["set-cookie"])
    both = "; ".join(f"{name}={cookie.value}" for name, cookie in (kept | other).items()).encode()
    assert ask((b"Host", host.encode()), (b"Cookie", both), token="secret")[0] == 200
    assert ask((b"Host", b"127.0.0.1:9000"), (b"Cookie", both), token="other")[0] == 200


@pytest.mark.parametrize(
    "target", ["http://evil.example/a?b=c", "https://evil.example", "//evil.example/a", "/\\evil.example", "/a"]
)
def test_no_redirect_leads_elsewhere(target: str) -> None:
    location = ask(HOST, (b"X-Target", target.encode()))[1]["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=r"is taken.*--port"):
            bind("127.0.0.1", port)
    bind("127.0.0.1", port).close()
    with pytest.raises(AddressError, match="--host"):
        bind("no such host\n", 1)


@pytest.mark.parametrize("command", ["audit"])
def test_a_taken_port_ends_the_command_at_once(command: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        before = _cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "talking_points", command, str(tmp_path), "--port", port],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert _cpu_seconds() - before < 3
    assert done.returncode == 2, done.stderr
    assert "is taken" in done.stderr
    assert "Traceback" not in done.stderr


def _cpu_seconds() -> float:
    """Of processes that have ended: what a machine that others use takes longer for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_what_pages_store_lies_neither_in_the_working_folder_nor_stays(tmp_path: Path) -> None:
    code = "import talking_points.audit; from nicegui.storage import Storage; print(Storage().path)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("NICEGUI_STORAGE_PATH", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    place = Path(done.stdout.strip())
    assert place.name.startswith("talking-points-pages-")
    assert not place.exists()
