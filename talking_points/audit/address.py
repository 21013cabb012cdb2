"""Where a page is served: a socket that is bound before anything slow happens."""

from __future__ import annotations

import errno
import socket

from talking_points.errors import InputError


class AddressError(InputError):
    """A page cannot be served there: says why, and what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to ``host`` and ``port``, not listening yet. Raises ``AddressError``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise AddressError(f"{host!a} is no address of this machine ({error}): choose another with --host") from None
    try:
        # After a page that was just closed its port can be used at once.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} of {host} is taken, perhaps by a page like this one: choose another with --port, or end "
                "what uses it"
            ) from None
        raise AddressError(
            f"cannot serve at {host}, port {port} ({error}): choose others with --host, --port"
        ) from None
    return bound


def address_of(bound: socket.socket, host: str) -> str:
    """The address to open in a browser."""
    name = socket.getfqdn() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{bound.getsockname()[1]}/"
