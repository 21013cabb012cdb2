"""How often the tests that kill, damage and draw at random do so: often enough with every change, longer in a soak."""

from __future__ import annotations

import os

SOAK = os.environ.get("SOAK", "") not in ("", "0")
"""Set by ``make soak``."""


def repeats(usual: int, soak: int) -> int:
    """``usual`` times in ``make test``, ``soak`` times in ``make soak``."""
    return soak if SOAK else usual
