"""One kept connection to the server of a base URL: POST requests over HTTP/1.1, written and read by h11.

Of a client it has only what a request for a text needs: no pool, no hooks, no redirects, no proxy. It takes about a
quarter of the time of a general client, and raises the same errors, those of httpx.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import h11
import httpx

from talking_points.descriptions.backends.answer_limits import Pieces, check_size, read_whole

_LONGEST_HEAD = 100 * 1024
"""Bytes."""
_NEXT_ADDRESS = 0.25
"""Seconds after which the next address of a name is tried beside the one that has not answered (RFC 8305)."""


def own_loop() -> asyncio.AbstractEventLoop:
    """A new event loop of the standard library, whatever others have installed in this process: that of uvloop, which a
    worker of Ray has, takes no time after which the next address is tried.
    """
    return asyncio.SelectorEventLoop()


def end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Stop a loop that runs in a thread, and close what answers that were broken off have left in it."""
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class Connection:
    """Opened by the first request, kept for the next, opened anew where the server has closed it.

    ``headers`` go with every request. It belongs to one event loop and takes one request at a time.
    """

    def __init__(
        self, url: str, headers: Sequence[tuple[bytes, bytes]], timeout: httpx.Timeout, tls: ssl.SSLContext
    ) -> None:
        """``url`` is that of the server. Raises ``httpx.InvalidURL`` for one that cannot be read."""
        address = httpx.URL(url)
        self._host = address.raw_host.decode("ascii")
        self._port = address.port or (443 if address.scheme == "https" else 80)
        self._tls = tls if address.scheme == "https" else None
        self._headers = [(b"Host", address.netloc), *headers, (b"Content-Type", b"application/json")]
        self._timeout = timeout
        self._state = h11.Connection(h11.CLIENT)
        self._wire: _Wire | None = None
        self._target: httpx.URL | None = None

    async def post(self, target: httpx.URL, body: bytes) -> httpx.Response:
        """The whole response to a POST of ``body``, within the time of ``timeout.read`` once it is sent.

        Raises ``httpx.TransportError`` as a client of httpx does, ``httpx.DecodingError`` for what is too large.
        """
        try:
            wire = await self._open()
            await self._send(wire, target, body)
            with _errors((TimeoutError, httpx.ReadTimeout)):
                async with asyncio.timeout(self._timeout.read):
                    response, content = await self._receive(wire)
        except BaseException:
            self.close()
            raise
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        else:
            self.close()
        if self._target is not target:  # making a request of httpx takes as long as sending it
            self._target, self._request = target, httpx.Request("POST", target)
        return await _as_httpx(response, content, self._request)

    def close(self) -> None:
        """Let the connection go; the next request opens one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.transport.close()

    async def _open(self) -> _Wire:
        if self._wire is not None and self._wire.is_quiet():
            return self._wire
        self.close()
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        with _errors((TimeoutError, httpx.ConnectTimeout), (OSError, httpx.ConnectError)):
            async with asyncio.timeout(self._timeout.connect):
                _, self._wire = await asyncio.get_running_loop().create_connection(
                    _Wire, self._host, self._port, ssl=self._tls, happy_eyeballs_delay=_NEXT_ADDRESS
                )
        return self._wire

    async def _send(self, wire: _Wire, target: httpx.URL, body: bytes) -> None:
        headers = [*self._headers, (b"Content-Length", b"%d" % len(body))]
        with _errors((h11.LocalProtocolError, httpx.LocalProtocolError)):
            head = self._state.send(h11.Request(method=b"POST", target=target.raw_path, headers=headers))
            pieces = [head, self._state.send(h11.Data(data=body)), self._state.send(h11.EndOfMessage())]
        wire.transport.writelines([piece for piece in pieces if piece])
        # A server may answer, or go, before it has read everything: what it has said is read next.
        with _errors((TimeoutError, httpx.WriteTimeout)):
            await wire.wait_for(lambda: bool(wire.received) or wire.ended or not wire.is_full, self._timeout.write)

    async def _receive(self, wire: _Wire) -> tuple[h11.Response, bytes]:
        response: h11.Response | None = None
        content: list[bytes] = []
        size = 0
        while True:
            with _errors((h11.RemoteProtocolError, httpx.RemoteProtocolError)):
                event = self._state.next_event()
            if event is h11.NEED_DATA:
                data = await self._read(wire)
                if not data and response is None:
                    raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
                self._state.receive_data(data)
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                size += len(event.data)
                check_size(size)
                content.append(bytes(event.data))
            elif response is not None and (isinstance(event, h11.EndOfMessage) or event is h11.PAUSED):
                return response, b"".join(content)

    async def _read(self, wire: _Wire) -> bytes:
        await wire.wait_for(lambda: bool(wire.received) or wire.ended, None)
        if not wire.received and wire.error is not None:
            raise httpx.ReadError(str(wire.error)) from wire.error
        data = b"".join(wire.received)
        wire.received.clear()
        return data


class _Wire(asyncio.Protocol):
    """What a socket has received and whether it has ended, for one task that waits for it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.ended = self.is_full = False
        self.error: Exception | None = None
        self._changed: asyncio.Future[None] | None = None

    def is_quiet(self) -> bool:
        """Whether the next request can use it: what comes between two requests is the end, or an answer to neither."""
        return not (self.received or self.ended or self.transport.is_closing() or self._has_more())

    def _has_more(self) -> bool:
        """Whether there is something to read that the loop has not come to yet."""
        socket = self.transport.get_extra_info("socket")
        if hasattr(select, "poll"):
            looked = select.poll()
            looked.register(socket.fileno(), select.POLLIN)
            return bool(looked.poll(0))
        return bool(select.select([socket], [], [], 0)[0])

    async def wait_for(self, condition: Callable[[], bool], seconds: float | None) -> None:
        """Until it holds. Raises ``TimeoutError`` when nothing has changed for so long."""
        while not condition():
            self._changed = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(seconds):
                await self._changed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended, self.error = True, error
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


@contextmanager
def _errors(*known: tuple[type[Exception], type[httpx.TransportError]]) -> Iterator[None]:
    """Errors as httpx names them, the first kind that fits."""
    try:
        yield
    except Exception as error:
        for kind, name in known:
            if isinstance(error, kind):
                raise name(str(error)) from error
        raise


async def _as_httpx(response: h11.Response, content: bytes, request: httpx.Request) -> httpx.Response:
    """The response as the rest of the program reads it, its content decoded as its headers say."""
    headers = response.headers.raw_items()
    if not any(name == b"content-encoding" for name, _ in response.headers):
        return httpx.Response(response.status_code, headers=headers, content=content, request=request)
    found = httpx.Response(response.status_code, headers=headers, stream=Pieces(content), request=request)
    return await read_whole(found)
