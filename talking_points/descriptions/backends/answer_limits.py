"""What one answer of a model server may take: its size, packed or not, and its time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx

ANSWER_BYTES = 8 << 20
"""Of one answer, unpacked. A long text has some hundred thousand."""

CODINGS = "gzip, deflate"
"""Ways of packing that are asked for: what they pack grows a thousandfold at most, that of others without bound."""

_PIECE = 1 << 16
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, whose loading takes long: for plain HTTP."""
_ALLOWED = ("", "identity", *CODINGS.split(", "))


class Pieces(httpx.AsyncByteStream):
    """Bytes that are there already, in pieces, so that each is unpacked by itself."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), _PIECE):
            yield self._content[start : start + _PIECE]


def check_coding(response: httpx.Response) -> None:
    """Raises ``httpx.DecodingError`` for what is packed in a way that nobody asked for, or several times over."""
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _ALLOWED:
        raise httpx.DecodingError(f"an answer that is packed as {coding[:40]!a}: expected {CODINGS} or none")


def check_size(size: int) -> None:
    """Raises ``httpx.DecodingError`` for more bytes than an answer may have."""
    if size > ANSWER_BYTES:
        raise httpx.DecodingError(f"an answer of more than {ANSWER_BYTES >> 20} MiB")


async def read_whole(response: httpx.Response) -> httpx.Response:
    """An answer with its content, unpacked, read from the answer's stream. Raises ``httpx.DecodingError``."""
    check_coding(response)
    content, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        check_size(size)
        content.append(piece)
    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=b"".join(content), request=response.request)


def look(url: str, headers: Mapping[str, str], seconds: float) -> httpx.Response:
    """The whole answer of a server of this machine to a GET, within so many seconds, redirects not followed.

    It asks from a thread of its own: the caller's may have a loop that runs. Raises as ``ask``.
    """

    async def whole() -> httpx.Response:
        async with httpx.AsyncClient(
            headers={"Accept-Encoding": CODINGS, **headers}, timeout=seconds, trust_env=False, verify=_NO_TLS
        ) as client:
            return await ask(client, client.build_request("GET", url), seconds)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, whole()).result()


async def ask(
    client: httpx.AsyncClient, request: httpx.Request, seconds: float | None, *, stream: bool = False
) -> httpx.Response:
    """The answer to a request, whole unless it is to be streamed, within so many seconds.

    Raises ``httpx.ReadTimeout`` after them, ``httpx.DecodingError`` as above, and what the client raises.
    """
    try:
        async with asyncio.timeout(seconds):
            response = await client.send(request, stream=True)
            if stream:
                return response
            try:
                return await read_whole(response)
            finally:
                await response.aclose()
    except TimeoutError as error:
        raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s") from error
