"""What was probably meant where a name is one folder too high or too low, or an address in place of a name."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

_MOST = 1000
"""Entries of a folder that are looked at."""


def folder_near(path: str | Path, holds: str = "manifest.json") -> str:
    """`` (did you mean 'DIR'?)`` where a folder around or in ``path`` has the file ``holds``; else empty."""
    place = Path(path)
    try:
        inside = sorted(islice(place.iterdir(), _MOST)) if place.is_dir() else []
        found = next((near for near in (place.parent, place.parent.parent, *inside) if (near / holds).is_file()), None)
    except OSError:
        return ""
    return "" if found is None or found == place else f" (did you mean '{found}'?)"


def repository_in(address: str) -> str:
    """`` (did you mean 'org/name'?)`` for the address of a page of the Hub; else empty."""
    found = re.match(r"(?:https?://)?(?:www\.)?huggingface\.co/(?:datasets/|models/)?([\w.-]+/[\w.-]+)", address)
    return f" (did you mean '{found[1]}'?)" if found else ""
