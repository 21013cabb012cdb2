"""The HTTP client with which all code here reaches the Hugging Face Hub: no server makes it wait or read for good.

The Hub's library asks without a time limit, follows "next page" and resumes broken downloads for ever, sleeps as long
as a server tells it to, unpacks what is packed, and names files of its cache after what an answer's headers say. The
address it asks (``HF_ENDPOINT``) may be any server. ``bounded_hub`` puts limits around all of it, for
``huggingface_hub`` and for what builds on it: ``datasets``, ``transformers``.
"""

from __future__ import annotations

import functools
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from talking_points.proxies import is_this_machine

SILENCE = 60.0
"""Seconds between two pieces of an answer, at most; a commit of many files takes the Hub some of them."""

CONNECT = 10.0
"""Seconds until a connection stands."""

UNANSWERED, REST = 2, 300.0
"""Requests in a row that a server may leave without an answer; seconds after which it is asked again."""

ANSWER_SECONDS, ANSWER_BYTES = 300.0, 64 << 20
"""What an answer of the API takes in all, at most: listings are paged."""

UNSTATED_BYTES = 1 << 30
"""Largest download whose length nobody stated."""

SLOWEST, WINDOW = 1024, 60.0
"""Bytes per second of a download, over so many seconds: below it, it is given up."""

WAIT = 60
"""Seconds that a server may ask to wait before another try."""

IN_A_ROW = {"pages": 1000, "redirects": 10, "broken answers": 20}
"""Answers of one kind that follow each other, at most."""

_NAME = re.compile(r'(?:W/)?"?[A-Za-z0-9_.:+=-]{1,200}"?')
_NAMING = ("etag", "x-linked-etag", "x-repo-commit")
"""Headers after whose values the library names files."""

_in_a_row = threading.local()
_silent: dict[tuple[str, int | None], tuple[int, float]] = {}
"""Servers that did not answer: how often in a row, and when last."""


@functools.cache
def bounded_hub() -> None:
    """Make the Hub's library use a client with limits, from now on in this process; may be called again."""
    from huggingface_hub import set_client_factory

    set_client_factory(_client)


def of_the_answer(error: BaseException) -> bool:
    """Whether an error comes from the library that asked the Hub, not from this project's own code.

    The library takes an answer's form for granted: one of another form ends in a KeyError or a TypeError of it.
    """
    innermost = list(traceback.walk_tb(error.__traceback__))[-1][0].f_code.co_filename
    return Path(__file__).parent not in Path(innermost).parents or innermost == __file__


def _client() -> Any:
    import httpx2
    from huggingface_hub.utils._http import hf_request_event_hook

    class Client(httpx2.Client):
        def send(self, request: Any, **options: Any) -> Any:
            place = (request.url.host, request.url.port)
            _refuse_silent(place)
            try:
                response = super().send(request, **options)
            except httpx2.TimeoutException:
                _silent[place] = (_silent.get(place, (0, 0.0))[0] + 1, time.monotonic())
                raise
            _silent.pop(place, None)
            return response

    return Client(
        event_hooks={"request": [hf_request_event_hook, _limit_request], "response": [_limit_response]},
        headers={"Accept-Encoding": "identity"},
        follow_redirects=True,
        max_redirects=IN_A_ROW["redirects"],
        timeout=httpx2.Timeout(SILENCE, connect=CONNECT),
    )


def silent_hubs() -> str:
    """What to add to a message of a library that does not tell why it found nothing; "" where servers answered."""
    hosts = sorted({host for (host, _), (times, _) in _silent.items() if times >= UNANSWERED})
    return f"; {', '.join(hosts)} takes connections and does not answer" if hosts else ""


def _refuse_silent(place: tuple[str, int | None]) -> None:
    """Loading a model asks for a dozen files, each several times: all of that waiting would take an hour."""
    times, since = _silent.get(place, (0, 0.0))
    if times < UNANSWERED:
        return
    if time.monotonic() - since > REST:
        del _silent[place]
        return
    raise _refusal(f"{place[0]} took {times} connections and answered none of them in {SILENCE:g} s: not asked again")


def _limit_request(request: Any) -> None:
    """The library asks for no time limit in most of its calls; for a longer one it may not ask either."""
    given = request.extensions.get("timeout") or {}
    limits = {"connect": CONNECT, "read": SILENCE, "write": SILENCE, "pool": SILENCE}
    request.extensions["timeout"] = {
        name: limit if given.get(name) is None else min(given[name], limit) for name, limit in limits.items()
    }
    request.extensions["trace"] = _header_clock()
    if not _may_be_asked(str(request.url)):
        raise _refusal(f"the Hub's answer led to {request.url.host}, an address of this machine: it was not asked")


def _header_clock() -> Callable[[str, Any], None]:
    """Follows one request: headers that come byte by byte end with the connection that they come over."""
    from huggingface_hub import close_session

    clock = threading.Timer(ANSWER_SECONDS, close_session)
    clock.daemon = True

    def follow(event: str, _: Any) -> None:
        if event.endswith("receive_response_headers.started"):
            clock.start()
        elif ".receive_response_headers." in event:
            clock.cancel()

    return follow


def _may_be_asked(url: str) -> bool:
    """Whether a request may go there: to this machine or its own network's link only where the Hub is there itself."""
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if is_this_machine(constants.ENDPOINT):
        return True
    try:
        local = ip_address(urlsplit(url).hostname or "").is_link_local
    except ValueError:
        local = False
    return not local and not is_this_machine(url)


def _limit_response(response: Any) -> None:
    headers = response.headers
    packed = headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        response.close()
        raise _refusal(f"the Hub's answer is packed ({packed[:20]!a}), which was not asked for")
    for name in _NAMING:
        if name in headers and (not _NAME.fullmatch(headers[name]) or ".." in headers[name]):
            del headers[name]  # the library says that it is missing
    for name in ("retry-after", "ratelimit"):
        if any(int(number[:9]) > WAIT for number in re.findall(r"(?:t\s*=\s*|^\s*)(\d+)", headers.get(name, ""))):
            headers[name] = str(WAIT) if name == "retry-after" else ""
    _count(response, "redirects", response.has_redirect_location)
    _count(response, "pages", 'rel="next"' in headers.get("link", "") or "rel=next" in headers.get("link", ""))
    response.stream = _bounded_stream(response)


def _count(response: Any, kind: str, another: bool) -> None:
    """Count answers of a kind that follow each other in this thread."""
    counts = vars(_in_a_row)
    counts[kind] = counts.get(kind, 0) + 1 if another else 0
    if counts[kind] > IN_A_ROW[kind]:
        counts[kind] = 0
        response.close()
        raise _refusal(f"the Hub sends more than {IN_A_ROW[kind]} {kind} one after another")


def _refusal(reason: str) -> Exception:
    """An error of the connection that no retry of the library catches."""
    import httpx2

    return httpx2.TransportError(reason)


def _bounded_stream(response: Any) -> Any:
    import httpx2

    inner, request = response.stream, response.request
    download = request.method == "GET" and not request.url.path.startswith("/api/")
    most, stated = ANSWER_BYTES, "Content-Length" in response.headers
    if download:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        most = int(asked[2]) - int(asked[1]) + 1 if asked else 1 << 62 if stated else UNSTATED_BYTES

    class Bounded(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            received = recent = 0
            since = begun = time.monotonic()
            pieces = iter(inner)
            while True:
                try:
                    piece = next(pieces)
                except StopIteration:
                    return _count(response, "broken answers", False)
                except httpx2.TransportError:
                    _count(response, "broken answers", True)
                    raise
                received, recent = received + len(piece), recent + len(piece)
                if received > most:
                    raise _refusal(f"the Hub's answer has more than the {most:,} bytes that it may have")
                now = time.monotonic()
                if not download and now - begun > ANSWER_SECONDS:
                    raise _refusal(f"the Hub's answer took more than {ANSWER_SECONDS:g} seconds")
                if now - since > WINDOW:
                    if recent < SLOWEST * WINDOW:
                        raise _refusal(f"the Hub sent {recent:,} bytes in {now - since:.0f} seconds, which is too slow")
                    since, recent = now, 0
                yield piece

        def close(self) -> None:
            inner.close()

        @property
        def elapsed(self) -> Any:
            return inner.elapsed

    return Bounded()
