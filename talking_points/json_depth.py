"""How deep a value from JSON may be nested before whoever walks through it gives up."""

from __future__ import annotations

from typing import Any

DEPTH = 40
"""Nested values of a manifest, at most: what a configuration needs many times over."""


def check_depth(value: Any, most: int = DEPTH) -> None:
    """Raises ``ValueError`` for a value from JSON that is nested deeper than ``most``."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > most:
            raise ValueError(f"its values are nested more than {most} deep")
        level = [
            item
            for found in level
            if isinstance(found, dict | list)
            for item in (found.values() if isinstance(found, dict) else found)
            if isinstance(item, dict | list)
        ]
