"""How every figure is drawn: in matplotlib's own style, and with texts as they stand.

A ``matplotlibrc`` of the working folder, which may start programs (``text.usetex``), changes no figure, and a "$" in a
name or a description is a "$": what stands between two of them is no formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

WORDS = 120
"""Words of a text that are drawn or compared; the time that more of them take has no bound."""
_CHARACTERS = 1200


@contextmanager
def plain_style(style: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Around the drawing of a figure; ``style`` are settings of matplotlib on top."""
    import matplotlib

    # The backend is chosen by who draws; asking for it here would start one.
    own = {name: value for name, value in dict.items(matplotlib.rcParamsDefault) if not name.startswith("backend")}
    with matplotlib.rc_context({**own, "text.parse_math": False, **(style or {})}):
        yield


def shorten(text: str) -> str:
    """The beginning of a text, with an ellipsis where it is longer than ``WORDS`` words or about ten lines."""
    words = text[: _CHARACTERS + 1].split(maxsplit=WORDS)
    if len(text) <= _CHARACTERS and len(words) <= WORDS:
        return text
    return " ".join(words[:WORDS])[:_CHARACTERS].rstrip() + " …"
