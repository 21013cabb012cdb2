"""Whether a server can be reached, known within seconds: clients try for a minute before they say that it cannot."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_Answer = TypeVar("_Answer")

PATIENCE = 2.5
"""Seconds that a server gets to take a connection; a busy one may take longer to answer."""


def unreachable(url: str) -> str | None:
    """Why nobody takes a connection at ``url``, or None; a proxy that the environment names decides for itself."""
    address = urlsplit(url)
    host = address.hostname or ""
    if getproxies().get(address.scheme) and not proxy_bypass(host):
        return None
    try:
        port = address.port or {"http": 80}.get(address.scheme, 443)
        # Looking up a name has no time limit of its own.
        answer_within(PATIENCE, lambda: socket.create_connection((host, port), PATIENCE).close())
    except (OSError, ValueError) as error:
        return str(error) or f"no connection within {PATIENCE:g} s"
    return None


def answer_within(seconds: float, call: Callable[[], _Answer]) -> _Answer:
    """What ``call`` gives. Raises what it raises, and ``TimeoutError`` where it takes longer.

    It is then left alone: the program does not wait for it at its end either, as it would for a thread of a pool.
    """
    answer: Future[_Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    return answer.result(seconds)
