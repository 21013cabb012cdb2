"""What a piece of code opens and connects to, told by Python's audit events. What Arrow opens it does not see."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NETWORK = "network:"
_opened: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is None:
        return
    if event in ("open", "os.listdir", "os.scandir"):
        _opened.append(str(arguments[0]))
    elif event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        _opened.append(f"{NETWORK} {event} {arguments[1:]}")
        raise PermissionError(f"{event} is forbidden here: {arguments[1:]}")


sys.addaudithook(_note)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Paths that Python opens, and "network: ..." for sockets, which are refused, while the block runs."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None
