"""The kept connection: one for many requests, never an answer to another request, errors of httpx."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx
import pytest

from talking_points.descriptions.backends.answer_limits import ask, look
from talking_points.descriptions.backends.connection import Connection

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_TIMEOUT = httpx.Timeout(5.0)


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


def _response(body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), headers, body)


def _post(
    serve: Serve, *bodies: bytes, timeout: httpx.Timeout = _TIMEOUT, pause: float = 0.0, general: bool = False
) -> tuple[list[httpx.Response], int]:
    """The responses to the bodies, posted one after another, and how many connections the server has seen.

    ``pause``: seconds before each, in which what the server does after an answer arrives. ``general``: by the client
    that stands in where a connection of its own is not enough.
    """
    seen = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test ends
        finally:
            writer.close()

    async def run() -> list[httpx.Response]:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1?key=k"
            connection = Connection(url, [(b"Authorization", b"Bearer k")], timeout, ssl.create_default_context())
            found = []
            async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
                try:
                    for body in bodies:
                        await asyncio.sleep(pause)
                        if general:
                            found.append(
                                await ask(client, client.build_request("POST", url, content=body), timeout.read)
                            )
                        else:
                            found.append(await connection.post(httpx.URL(url), body))
                finally:
                    connection.close()
            return found

    return asyncio.run(run()), seen


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, body = await _read(reader)
        writer.write(_response(body))


async def _echo_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, body = await _read(reader)
    writer.write(_response(body))


async def _echo_and_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, body = await _read(reader)
        writer.write(_response(body))
        await asyncio.sleep(0.005)
        writer.write(_response(b"nobody has asked for this"))


async def _in_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, body = await _read(reader)
        packed = zlib.compress(body)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: deflate\r\n\r\n")
        for piece in (packed[:5], packed[5:]):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")


async def _until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, body = await _read(reader)
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("serve", "connections", "pause"),
    [
        (_echo, 1, 0.0),
        (_in_chunks, 1, 0.0),
        (_echo_and_close, 3, 0.3),
        (_until_the_end, 3, 0.3),
        (_echo_and_more, 3, 0.3),
    ],
    ids=["kept", "chunks", "closed", "no length", "stray answer"],
)
def test_every_request_gets_its_own_answer(serve: Serve, connections: int, pause: float) -> None:
    bodies = [b"first", b"x" * 300_000, b"last"]
    found, seen = _post(serve, *bodies, pause=pause)
    assert [response.content for response in found] == bodies
    assert seen == connections


def test_a_response_knows_where_it_comes_from() -> None:
    async def run() -> None:
        async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            connection = Connection(url, [], _TIMEOUT, ssl.create_default_context())
            targets = [httpx.URL(url + path) for path in ("v1", "v1", "v2")]
            found = [await connection.post(target, b"{}") for target in targets]
            connection.close()
            assert [response.request.url for response in found] == targets

    asyncio.run(run())


def test_a_request_carries_what_it_was_given() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await _read(reader)
        heads.append(head)
        writer.write(_response(body))

    _post(serve, b"{}")
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"POST /v1?key=k HTTP/1.1"
    for line in (b"Authorization: Bearer k", b"Content-Type: application/json", b"Content-Length: 2"):
        assert line in lines
    assert any(line.startswith(b"Host: 127.0.0.1:") for line in lines)


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read(reader)


async def _half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read(reader)
    writer.write(_response(b"0123456789")[:-5])


async def _no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read(reader)
    writer.write(b"220 mail.example ESMTP\r\n\r\n")


async def _deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(2)


def _without_end(start: bytes, piece: bytes, pause: float = 0.0) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(start)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return serve


def _packed(coding: bytes, content: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        writer.write(_response(content, b"Content-Encoding: " + coding + b"\r\n"))

    return serve


async def _deaf_and_loud(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65_536)
        await writer.drain()


_OK, _CHUNK = b"HTTP/1.1 200 OK\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n"
_BOMB = zlib.compress(b" " * 9_000_000)


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        (_without_end(_OK + b"\r\n", b" " * 65_536), httpx.DecodingError),
        (_without_end(_OK + b"Transfer-Encoding: chunked\r\n\r\n", _CHUNK), httpx.DecodingError),
        (_without_end(_OK + b"Content-Length: 9000\r\n\r\n", b" ", 0.01), httpx.ReadTimeout),
        (_without_end(_OK, b"X: y\r\n", 0.01), httpx.ReadTimeout),
        (_without_end(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 10), httpx.ReadTimeout),
        (_packed(b"deflate", _BOMB), httpx.DecodingError),
        (_packed(b"deflate, deflate", zlib.compress(_BOMB)), httpx.DecodingError),
        (_packed(b"br", b"\x0b\x02\x80"), httpx.DecodingError),
    ],
    ids=["body", "chunks", "byte by byte", "headers", "1xx", "packed", "packed twice", "not asked for"],
)
@pytest.mark.parametrize("general", [False, True], ids=["direct", "client"])
def test_answers_without_end_are_given_up(serve: Serve, error: type[Exception], general: bool) -> None:
    with pytest.raises(error):
        _post(serve, b"{}", timeout=httpx.Timeout(0.3 if error is httpx.ReadTimeout else 30.0), general=general)


@pytest.mark.parametrize(
    ("start", "piece", "error"),
    [
        (_OK + b"\r\n", b" " * 65_536, httpx.DecodingError),
        (_OK + b"Content-Length: 9000\r\n\r\n", b" ", httpx.ReadTimeout),
        (_OK, b"X: y\r\n", httpx.ReadTimeout),
        (_OK + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\n", b"abc", httpx.DecodingError),
    ],
    ids=["body", "byte by byte", "headers", "not asked for"],
)
@pytest.mark.parametrize("looping", [False, True], ids=["alone", "in a loop"])
def test_a_look_at_a_server_has_an_end(start: bytes, piece: bytes, error: type[Exception], looping: bool) -> None:
    """A server that a build has started, or what has taken its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(start)
            while not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01 if len(piece) < 9 else 0)

    async def run() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/models"
            seconds = 0.3 if error is httpx.ReadTimeout else 20.0
            with pytest.raises(error):
                await asyncio.to_thread(_look_in_a_loop if looping else look, url, {}, seconds)

    asyncio.run(run())


def _look_in_a_loop(url: str, headers: dict[str, str], seconds: float) -> None:
    async def inside() -> None:
        look(url, headers, seconds)

    asyncio.run(inside())


@pytest.mark.parametrize(
    ("serve", "body", "error"),
    [
        (_silence, b"{}", httpx.ReadTimeout),
        (_gone, b"{}", httpx.RemoteProtocolError),
        (_half, b"{}", httpx.RemoteProtocolError),
        (_no_http, b"{}", httpx.RemoteProtocolError),
        (_deaf, b"x" * 30_000_000, httpx.WriteTimeout),
        (_deaf_and_loud, b"x" * 30_000_000, httpx.RequestError),
    ],
    ids=["silence", "gone", "half", "no http", "deaf", "deaf and loud"],
)
def test_failures_are_those_of_httpx(serve: Serve, body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        _post(serve, body, timeout=httpx.Timeout(0.3))


def test_an_answer_counts_that_came_before_the_request_was_read() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        await reader.read()  # a server that closes at once may lose its answer on the way

    (found,), _ = _post(refuse, b"x" * 5_000_000)
    assert (found.status_code, found.text) == (413, "big")


def test_nobody_there() -> None:
    async def run() -> None:
        connection = Connection("http://127.0.0.1:1", [], _TIMEOUT, ssl.create_default_context())
        await connection.post(httpx.URL("http://127.0.0.1:1/v1"), b"{}")

    with pytest.raises(httpx.ConnectError):
        asyncio.run(run())
