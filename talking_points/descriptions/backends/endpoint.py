"""The server behind a base URL: its key, its redirects, and the proxy on the way to it."""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from talking_points.descriptions.backends.answer_limits import CODINGS, ask, check_coding, read_whole
from talking_points.descriptions.backends.connection import Connection
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.hub_client import SLOWEST, WINDOW
from talking_points.proxies import is_this_machine, proxy_variable
from talking_points.redaction import protect, protect_settings, redact
from talking_points.whole_files import writing_whole

_HOPS = 5
"""Redirects that are followed for one request."""
_KEEPS_METHOD = (307, 308)
_UPLOAD = 3600.0
"""Seconds that sending a file of requests may take."""


class Endpoint:
    """Requests below one base URL; ``str`` of it is the URL without its secrets.

    A user and password, and a query such as ``?key=...``, may be part of the URL: they go with every request.
    """

    def __init__(self, url: str, key: str | None) -> None:
        protect_settings(url)
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BackendUnavailable(
                f"endpoint: expected a base URL such as http://127.0.0.1:8000/v1, found {redact(url)!r}"
            )
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._shown = redact(url.strip())
        self._query = parts.query
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A key of its own variable goes before what the URL holds.
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self._basic = httpx.BasicAuth(user, password) if user and not key else None
        self._moved: dict[str, str] = {}
        self._urls: dict[str, httpx.URL] = {}
        self._direct: dict[httpx.AsyncClient, Connection | None] = {}
        self._tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return self._shown

    def client(self, timeout: float) -> httpx.AsyncClient:
        """A client of one connection; ``timeout`` in seconds. Raises ``BackendUnavailable``.

        The pool of a client looks at all of its connections for each request, three times over: with dozens of them
        that takes longer than the request itself.
        """
        try:
            direct = is_this_machine(self.url)
            # One for all clients, and for plain HTTP too, which may redirect: loading the certificates takes long.
            self._tls = self._tls or httpx.create_ssl_context(trust_env=not direct)
            return httpx.AsyncClient(
                headers={"Accept-Encoding": CODINGS, **self._headers},
                auth=self._basic,
                timeout=httpx.Timeout(timeout, connect=min(10.0, timeout), pool=None),
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                verify=self._tls,
                # A proxy of the environment is never asked for this machine.
                trust_env=not direct,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise BackendUnavailable(
                f"no connection to {self} can be set up ({redact(str(error))}){self.proxy_hint()}"
            ) from None

    async def get(self, client: httpx.AsyncClient, name: str) -> httpx.Response:
        """GET of ``name`` below the base URL."""
        return await self._send(client, "GET", name, None)

    async def post(self, client: httpx.AsyncClient, name: str, body: bytes) -> httpx.Response:
        """POST of a JSON body to ``name`` below the base URL."""
        return await self._send(client, "POST", name, body)

    async def send(self, client: httpx.AsyncClient, method: str, name: str, **form: Any) -> httpx.Response:
        """A request with the fields ``params``, ``data``, ``files`` or ``json`` of httpx, below the base URL."""
        return await self._send(client, method, name, None, **form)

    async def download(self, client: httpx.AsyncClient, name: str, path: Path, most: int) -> httpx.Response:
        """GET of ``name`` into a file of at most ``most`` bytes; it is written only where the status is 200.

        Raises ``httpx.DecodingError`` for more of it, and ``httpx.ReadTimeout`` for one that comes byte by byte.
        """
        response = await self._send(client, "GET", name, None, stream=True)
        try:
            if response.status_code != 200:
                return await read_whole(response)
            check_coding(response)
            size, begun = 0, time.monotonic()
            with writing_whole(path) as temporary, temporary.open("wb") as stream:
                async for piece in response.aiter_bytes():
                    size += len(piece)
                    if size > most:
                        raise httpx.DecodingError(f"a file of more than {most:,} bytes")
                    if time.monotonic() - begun > WINDOW + size / SLOWEST:
                        raise httpx.ReadTimeout(f"a file that comes at less than {SLOWEST:,} bytes per second")
                    stream.write(piece)
            return response
        finally:
            await response.aclose()

    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        name: str,
        body: bytes | None,
        *,
        stream: bool = False,
        **form: Any,
    ) -> httpx.Response:
        """One request, after the redirects that keep it what it is.

        Followed are those of the same host and port that keep the method, and a step up to https. What leads elsewhere
        is named and not followed: the key and the images were meant for the server that was configured.
        """
        url = self._moved.get(name) or f"{self.url}/{name}{f'?{self._query}' if self._query else ''}"
        headers = {"Content-Type": "application/json"} if body is not None else None
        for _ in range(_HOPS):
            direct = self._direct_connection(client, self._parse(url)) if body is not None else None
            if direct is not None and body is not None:
                response = await direct.post(self._parse(url), body)
                if "Set-Cookie" in response.headers:
                    client.cookies.extract_cookies(response)
            else:
                request = client.build_request(method, url, content=body, headers=headers, **form)
                seconds = _UPLOAD if "files" in form else client.timeout.read
                response = await ask(client, request, seconds, stream=stream)
            if not 300 <= response.status_code < 400:
                return response
            await response.aclose()
            target = self._target(response, method)
            if response.status_code == 308:
                self._moved[name] = target
            url = target
        raise BackendUnavailable(f"{self} redirects in a circle: set the endpoint to the server's own address")

    def _direct_connection(self, client: httpx.AsyncClient, url: httpx.URL) -> Connection | None:
        """The plain connection that stands in for a client where a request needs no more of it than its headers: it
        goes to the server itself, without a proxy, and carries no cookies. None for all others.
        """
        here = self._parse(self.url)
        same = (url.host, url.scheme, url.port) == (here.host, here.scheme, here.port)
        if not same or self._basic is not None or client.cookies:
            return None
        if client not in self._direct:
            assert self._tls is not None
            proxied = proxy_variable(self.url)
            made = None if proxied else Connection(self.url, client.headers.raw, client.timeout, self._tls)
            self._direct[client] = made
        return self._direct[client]

    async def close(self, client: httpx.AsyncClient) -> None:
        """Close a client and what stands in for it."""
        direct = self._direct.pop(client, None)
        if direct is not None:
            direct.close()
        await client.aclose()

    def _parse(self, url: str) -> httpx.URL:
        if url not in self._urls:
            self._urls[url] = httpx.URL(url)
        return self._urls[url]

    def _target(self, response: httpx.Response, method: str) -> str:
        status, location = response.status_code, response.headers.get("Location")
        try:
            target = response.url.join(location) if location else None
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise httpx.RemoteProtocolError(f"an address that cannot be read in 'Location': {error}") from error
        if target is None:
            raise BackendUnavailable(f"{self} answers with HTTP {status} and no address to go to: check the endpoint")
        here = response.url
        same = target.host == here.host and (
            target.scheme == "https" != here.scheme or (target.scheme, target.port) == (here.scheme, here.port)
        )
        if same and (status in _KEEPS_METHOD or method == "GET"):
            return str(target)
        raise BackendUnavailable(
            f"{self} redirects (HTTP {status}) to {redact(_strip_query(str(target)))}: "
            "set the endpoint to it, without 'chat/completions' or 'models' at its end"
        )

    def proxy_hint(self) -> str:
        """What to say beside a failed connection where a proxy of the environment is on the way."""
        variable = proxy_variable(self.url)
        if variable is None:
            return ""
        host = urlsplit(self.url).hostname
        return (
            f"; the request goes through the proxy of {variable}: if the server is to be reached directly, "
            f"add '{host}' to NO_PROXY"
        )


def api_key(variable: str) -> str | None:
    """The key that an environment variable holds, without white space around it; None where there is none.

    Raises ``BackendUnavailable``, which names the variable and never its value, for a key that no header can carry.
    """
    value = os.environ.get(variable)
    protect(value)
    key = (value or "").strip().strip("\ufeff\u200b").strip()
    if not key:
        return None
    protect(key)
    wrong = [char for char in key if not "!" <= char <= "~"]
    if wrong:
        kind = (
            "white space or a control character" if wrong[0].isascii() else f"a character such as U+{ord(wrong[0]):04X}"
        )
        raise BackendUnavailable(
            f"the key in the environment variable {variable} has {kind} in it, which no HTTP header can carry: "
            "set it to the key alone, without quotes and line breaks"
        )
    return key


def _strip_query(url: str) -> str:
    return url.partition("?")[0]
