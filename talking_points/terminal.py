"""The border to the terminal: what a command says goes through here, or is drawn by ``RedactedConsole``.

Names of folders, settings and texts of others hold what a terminal obeys; see ``redaction.shown``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from talking_points.escaping import for_json, for_terminal
from talking_points.redaction import hide_secrets, shown


def show(text: object, *, secrets: bool = False) -> None:
    """One result, on stdout. ``secrets``: it is there to tell one."""
    print(for_terminal(str(text)) if secrets else shown(str(text)), flush=True)


def show_json(value: Any, *, ascii_only: bool = True) -> None:
    """One result as one line of JSON, on stdout: whatever its texts hold."""
    print(for_json(json.dumps(hide_secrets(value), ensure_ascii=ascii_only)), flush=True)


def tell(text: str) -> None:
    """One line about what begins now, on stderr."""
    print(shown(text), file=sys.stderr, flush=True)
