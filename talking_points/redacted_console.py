"""The terminal as rich draws on it: secrets are taken out of each text before tables are laid out.

A key that a column breaks in two would not be known again in what is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from talking_points.redaction import redact


class RedactedConsole(Console):
    """rich's console, which shows no secret in a text, a table, its titles or its cells."""

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        """As of rich; also what the width of a cell is measured by."""
        return super().render_str(redact(text), *args, **kwargs)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As of rich, which comes here with each cell."""
        if isinstance(renderable, Text) and (plain := redact(renderable.plain)) != renderable.plain:
            shown = renderable.blank_copy(plain)
            if not shown.style and renderable.spans:
                shown.style = renderable.spans[0].style
            renderable = shown
        return super().render(renderable, options)
