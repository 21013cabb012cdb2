"""Whether a server can be reached, known within seconds: clients try for a minute before they say that it cannot."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.5
"""Seconds that a server gets to take a connection; a busy one may take longer to answer."""


def unreachable(url: str) -> str | None:
    """Why nobody takes a connection at ``url``, or None; a proxy that the environment names decides for itself."""
    address = urlsplit(url)
    host = address.hostname or ""
    if getproxies().get(address.scheme) and not proxy_bypass(host):
        return None
    pool = ThreadPoolExecutor(1)  # looking up a name has no time limit of its own
    try:
        port = address.port or {"http": 80}.get(address.scheme, 443)
        pool.submit(lambda: socket.create_connection((host, port), PATIENCE).close()).result(PATIENCE)
    except (OSError, ValueError) as error:
        return str(error) or f"no connection within {PATIENCE:g} s"
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return None
