"""The HTTP client with which a build reaches an S3 store: no store makes it wait or read for good.

The store's library reads an answer to its end, however long it is, and asks for pages as long as it is told that there
are more. Imported where a store is used: it comes with the store's library.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ConnectionClosedError

from talking_points.errors import RunError

ANSWER_BYTES = 16 << 20
"""Largest answer that is no content of an object: a page of a listing has a thousand names of a kilobyte each."""

ANSWER_SECONDS = 120.0
"""What an answer takes in all, at most, unless it is a whole object, which may be of any size."""

PAGES = 5000
"""Pages of one listing, at most: a hundred million points have half a million shards, of a few files each."""


class StoreError(RunError, OSError):
    """A store answers what no store would: says what."""


class BoundedSession(AIOHTTPSession):
    """As the library's own, with limits of size, time and number: its requests raise ``StoreError`` beyond them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pages: dict[str, int] = {}

    def _get_request_timeout(self, request: Any) -> Any:
        given = super()._get_request_timeout(request) or self._timeout
        whole_object = request.of_object and _asked(request) is None
        if request.method not in ("GET", "HEAD") or whole_object:
            return given
        return aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=given.sock_connect, sock_read=given.sock_read)

    async def send(self, request: Any) -> Any:
        self._count_page(request.url)
        request.of_object = content = request.stream_output
        request.stream_output = True  # or it would read to the end
        try:
            response = await super().send(request)
        finally:
            request.stream_output = content
        if content and response.status_code < 300:
            self._check_length(request, response)
        else:
            response._content = await self._read(request, response)
        return response

    def _count_page(self, url: str) -> None:
        query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        listing = urlsplit(url).path + urlencode({key: value for key, value in query.items() if "token" not in key})
        if "continuation-token" not in query:
            self._pages.pop(listing, None)
            return
        self._pages[listing] = self._pages.get(listing, 1) + 1
        if self._pages[listing] > PAGES:
            raise StoreError(f"the store lists more than {PAGES:,} pages of names in one folder")

    def _check_length(self, request: Any, response: Any) -> None:
        """An object's content is read as a whole: what it has is said before it, and no more than was asked for."""
        stated, asked = response.headers.get("content-length", ""), _asked(request)
        if not stated.isdecimal() or (asked is not None and int(stated[:20]) > asked):
            response.raw.close()
            found = f"{int(stated[:20]):,} bytes" if stated.isdecimal() else "content without a length"
            wanted = "a length" if asked is None else f"at most {asked:,} bytes"
            raise StoreError(f"the store sends {found} of an object where {wanted} was asked for")

    async def _read(self, request: Any, response: Any) -> bytes:
        pieces, size = [], 0
        try:
            async for piece in response.raw.content.iter_chunked(1 << 16):
                pieces.append(piece)
                size += len(piece)
                if size > ANSWER_BYTES:
                    response.raw.close()
                    raise StoreError(f"the store's answer has more than {ANSWER_BYTES >> 20} MiB")
        except TimeoutError as error:
            raise StoreError(f"the store's answer took more than {ANSWER_SECONDS:g} seconds") from error
        except aiohttp.ClientError as error:
            raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from error
        return b"".join(pieces)


def _asked(request: Any) -> int | None:
    """How many bytes of an object a request asks for; None for all of it."""
    value = request.headers.get("Range", "")
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", value.decode() if isinstance(value, bytes) else value)
    return int(found[2]) - int(found[1]) + 1 if found else None
