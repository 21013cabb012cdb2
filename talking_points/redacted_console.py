"""The terminal as rich draws on it: secrets, and what a terminal obeys, are taken out of each text before tables are
laid out.

A key that a column breaks in two would not be known again in what is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from talking_points.redaction import shown

_READABLE = 80
"""Characters that a table may take on any terminal."""


class RedactedConsole(Console):
    """rich's console, which shows a text, a table, its titles and its cells as ``redaction.shown`` does.

    Brackets and colons in them are no markup, and no emoji.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As of rich, which fits a table to a narrow terminal by cutting numbers off: there its lines are broken."""
        before, narrow = self._width, self.width < _READABLE
        if narrow and any(isinstance(thing, Table | Group) for thing in objects):
            self.width = _READABLE
        try:
            super().print(*objects, **options)
        finally:
            self._width = before

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        """As of rich; also what the width of a cell is measured by."""
        return super().render_str(shown(text), *args, **kwargs)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As of rich, which comes here with each cell."""
        if isinstance(renderable, Text) and (plain := shown(renderable.plain)) != renderable.plain:
            clean = renderable.blank_copy(plain)
            if not clean.style and renderable.spans:
                clean.style = renderable.spans[0].style
            renderable = clean
        return super().render(renderable, options)
