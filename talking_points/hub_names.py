"""Whether a name can be a repository of the Hugging Face Hub, and whether it can be had from here, within seconds.

The Hub's own client tries for a minute before it says that there is no network.
"""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0
"""Seconds that the Hub gets to take a connection."""


def unavailable(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """Why the repository ``name`` cannot be had now, or None: it is in the cache, or the Hub can be asked."""
    from huggingface_hub import constants

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(("./", "../")):
        return "it is no folder here, and no name of a repository (org/name) either"
    if Path(constants.HF_HUB_CACHE, f"{kind}s--{name.replace('/', '--')}", "snapshots").is_dir():
        return None
    if constants.HF_HUB_OFFLINE:
        return "it is no folder here, it is not in the cache of the Hub, and HF_HUB_OFFLINE is set"
    if not _reachable(constants.ENDPOINT):
        return f"it is no folder here, it is not in the cache of the Hub, and {constants.ENDPOINT} cannot be reached"
    return None


def _reachable(endpoint: str) -> bool:
    address = urlsplit(endpoint)
    host = address.hostname or ""
    if getproxies().get(address.scheme) and not proxy_bypass(host):
        return True  # the proxy decides
    port = address.port or {"http": 80}.get(address.scheme, 443)
    # Asking for the address of a name has no time limit of its own.
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(lambda: socket.create_connection((host, port), PATIENCE).close()).result(PATIENCE)
    except (OSError, TimeoutError):
        return False
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return True
