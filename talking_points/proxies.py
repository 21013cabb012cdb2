"""HTTP proxies of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY): never for this machine itself."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from talking_points.errors import InputError

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def is_this_machine(url: str) -> bool:
    """Whether a URL names this machine by a loopback name or address, or as the unspecified address."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def reach_this_machine_directly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the loopback names to NO_PROXY, in both spellings, so that servers started here are found.

    Child processes inherit it; all HTTP clients of this project and of its dependencies read it.
    """
    given = [name.strip() for key in ("no_proxy", "NO_PROXY") for name in environment.get(key, "").split(",")]
    names = list(dict.fromkeys(name for name in [*given, *_THIS_MACHINE] if name))
    # "*" means no proxy at all, and only when it stands alone.
    value = "*" if "*" in names else ",".join(names)
    environment["NO_PROXY"] = environment["no_proxy"] = value


def refuse_unusable_proxies() -> None:
    """Raise ``InputError`` for a proxy of the environment that the HTTP clients cannot even be made with.

    They look at every one of them before they know where a request goes, NO_PROXY or not.
    """
    for scheme, url in getproxies().items():
        if scheme not in ("http", "https", "all"):
            continue
        kind = urlsplit(url if "://" in url else f"http://{url}").scheme.lower()
        name = f"{scheme}_proxy" if os.environ.get(f"{scheme}_proxy") else f"{scheme}_proxy".upper()
        if kind in ("socks5", "socks5h") and find_spec("socksio") is None:
            raise InputError(
                f"{name} names a SOCKS proxy, which needs a package: pip install 'httpx[socks]', or unset {name}"
            )
        if kind not in ("http", "https", "socks5", "socks5h"):
            raise InputError(
                f"{name}: expected a proxy of the kind http, https or socks5, found '{kind}': correct or unset it"
            )


def proxy_variable(url: str) -> str | None:
    """The variable whose proxy a request to ``url`` goes through, or None: HTTP_PROXY and the like."""
    parts = urlsplit(url)
    if is_this_machine(url) or (parts.hostname and proxy_bypass(parts.hostname)):
        return None
    proxies = getproxies()
    for scheme in (parts.scheme, "all"):
        if proxies.get(scheme):
            name = f"{scheme}_proxy"
            return name if os.environ.get(name) else name.upper()
    return None
