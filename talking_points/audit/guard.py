"""Who may use a page: this machine alone, or whoever has the token when it is served to others."""

from __future__ import annotations

import secrets
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    # No other page may show this one and catch its clicks, and what a dataset's rows say loads nothing from elsewhere.
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'; "
    "img-src 'self' data:; media-src 'none'; connect-src 'self'; font-src 'self' data:",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class BrokenHeaderError(ValueError):
    """A request whose address or headers cannot be understood."""


class Guard:
    """ASGI middleware for pages and their websockets.

    A local page, as one without a token is, answers only requests addressed to this machine by a loopback name, so that
    no web site can reach it through a name of its own. With a token, which keeps out this machine's other users, only
    requests pass that carry it, in the address once and in a cookie from then on. Requests that other web sites start
    never pass, no answer may be framed, and none redirects elsewhere.
    """

    def __init__(self, app: ASGIApp, token: str | None, local: bool | None = None) -> None:
        self.app = app
        self.token = token
        self.local = token is None if local is None else local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        request = HTTPConnection(scope)
        refusal = self._refuse(request)
        if scope["type"] == "websocket":
            if refusal is None:
                return await self.app(scope, receive, send)
            return await send({"type": "websocket.close", "code": 1008})
        answer: ASGIApp = refusal or self.app
        if refusal is None and self.token and "token" in request.query_params:
            answer = self._remember(request)
        return await answer(scope, receive, _add_headers(send))

    def _refuse(self, request: HTTPConnection) -> Response | None:
        try:
            refusal = self._refusal(request)
        except BrokenHeaderError as error:
            return PlainTextResponse(f"bad request: {error}", status_code=400)
        return PlainTextResponse(refusal, status_code=403) if refusal else None

    def _refusal(self, request: HTTPConnection) -> str | None:
        host, name = _host(request)
        if not request.scope["path"].isprintable():
            # What is not found is told in the terminal, whatever site's page asked for it.
            raise BrokenHeaderError("the path is no printable text")
        for origin in request.headers.getlist("origin"):
            if _split(origin, "origin").netloc.lower() != host.lower():
                return "requests from other sites are not answered"
        if self.local and name not in LOOPBACK:
            return "this page answers to 127.0.0.1 and localhost only"
        if self.token is None:
            return None
        given = request.query_params.get("token") or request.cookies.get(_cookie(host)) or ""
        if not secrets.compare_digest(given.encode(errors="replace"), self.token.encode()):
            return "open the address that was printed when the page was started: it holds the token"
        return None

    def _remember(self, request: HTTPConnection) -> RedirectResponse:
        """Put the token into a cookie and take it out of the address."""
        query = urlencode([(name, value) for name, value in parse_qsl(request.url.query) if name != "token"])
        response = RedirectResponse(request.scope["path"] + (f"?{query}" if query else ""), status_code=303)
        response.set_cookie(_cookie(_host(request)[0]), self.token or "", httponly=True, samesite="strict")
        return response


def _host(request: HTTPConnection) -> tuple[str, str]:
    """The header ``Host`` and the name in it, in lower case. Raises ``BrokenHeaderError``."""
    hosts = request.headers.getlist("host")
    if len(hosts) != 1:
        raise BrokenHeaderError(f"expected one Host, found {len(hosts)}")
    parts = _split(f"//{hosts[0]}", "host")
    if not parts.hostname or parts.netloc != hosts[0] or parts.username is not None:
        raise BrokenHeaderError("Host is no name with a port")
    return hosts[0], parts.hostname.rstrip(".")


def _cookie(host: str) -> str:
    """The name under which the token is kept: a browser gives the cookies of one port to every other."""
    return f"page_token_{_split(f'//{host}', 'host').port or 80}"


def _split(text: str, header: str) -> SplitResult:
    if not text.isascii() or not text.isprintable():
        raise BrokenHeaderError(f"{header} is no plain text")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise BrokenHeaderError(f"{header} is no address") from None
    return parts


def _add_headers(send: Send) -> Send:
    """``send`` with the headers of this page, and with redirects that stay on it."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if "location" in headers:
                headers["location"] = _own(headers["location"])
        await send(message)

    return sent


def _own(location: str) -> str:
    """The address as a path of this site: "//name" and "/\\\\name" would be other sites for a browser."""
    parts = urlsplit(location) if location.startswith(("http://", "https://")) else None
    path = location if parts is None else parts.path + (f"?{parts.query}" if parts.query else "")
    return "/" + path.lstrip("/\\")
