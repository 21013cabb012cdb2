"""Who may use the audit page: this machine alone, or whoever has the token when it is served to others."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_COOKIE = "audit_token"


class Guard:
    """ASGI middleware for pages and their websockets.

    Without a token only requests addressed to this machine by a loopback name pass, so that no web site can reach the
    audit through a name of its own; with one, only requests that carry it, in the address once and in a cookie from
    then on. Requests that other web sites start never pass.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        request = HTTPConnection(scope)
        refusal = self._refusal(request)
        if refusal is None and self.token and "token" in request.query_params and scope["type"] == "http":
            return await self._remember(request)(scope, receive, send)
        if refusal is None:
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        return await PlainTextResponse(refusal, status_code=403)(scope, receive, send)

    def _refusal(self, request: HTTPConnection) -> str | None:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            return "requests from other sites are not answered"
        if self.token is None:
            name = urlsplit(f"//{request.headers.get('host', '')}").hostname
            return None if name in LOOPBACK else "this page answers to 127.0.0.1 and localhost only"
        given = request.query_params.get("token") or request.cookies.get(_COOKIE) or ""
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "open the address that was printed when the audit was started: it holds the token"
        return None

    def _remember(self, request: HTTPConnection) -> RedirectResponse:
        """Put the token into a cookie and take it out of the address."""
        query = urlencode([(name, value) for name, value in parse_qsl(request.url.query) if name != "token"])
        response = RedirectResponse(request.url.path + (f"?{query}" if query else ""), status_code=303)
        response.set_cookie(_COOKIE, self.token or "", httponly=True, samesite="strict")
        return response
