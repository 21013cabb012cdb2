"""Coordinates on a lattice: texts whose numbers are multiples of one step, each of which can be a token of its own."""

from __future__ import annotations

import re

from talking_points.config import ConfigError
from talking_points.grounding.grammar import DECIMALS, read_strict, write_outlines
from talking_points.grounding.outlines import Outlines, drop_repeats

MOST_STEPS = 1000
"""Finer than that three decimals cannot tell steps apart."""

_NUMBER = re.compile(r"(?<![\w.])(?:0\.[0-9]{1,4}|1\.0{1,4})(?![\w.])")


def check_lattice(steps: int) -> None:
    """Raise ``ConfigError`` unless there are 2 to 1000 steps."""
    if not 2 <= steps <= MOST_STEPS:
        raise ConfigError(f"expected a lattice of 2 to {MOST_STEPS} steps, found {steps!r}")


def lattice_numbers(steps: int) -> list[str]:
    """All numbers of a lattice as they are written: ``0.000``, ..., ``1.000``."""
    check_lattice(steps)
    return [f"{step / steps:.{DECIMALS}f}" for step in range(steps + 1)]


def snap(value: float, steps: int) -> float:
    """The nearest number of the lattice, clipped to [0, 1], as its text gives it."""
    return round(round(min(max(0.0, value), 1.0) * steps) / steps, DECIMALS)


def snap_outlines(outlines: Outlines, steps: int) -> Outlines:
    """Outlines on the lattice, without repeated points."""
    check_lattice(steps)
    return Outlines(
        tuple(
            tuple(tuple(drop_repeats((snap(x, steps), snap(y, steps)) for x, y in ring)) for ring in polygon)
            for polygon in outlines.polygons
        )
    )


def snap_text(text: str, steps: int) -> str | None:
    """A text with all its coordinates on the lattice. Words around them stay.

    None where an outline of the text has no area on the lattice.
    """
    start, end = text.find("["), text.rfind("]") + 1
    outlines = read_strict(text).outlines if end > start >= 0 else None
    if outlines is None:  # a point, a box or words
        return _NUMBER.sub(lambda found: f"{snap(float(found[0]), steps):.{DECIMALS}f}", text)
    holes = any(len(polygon) > 1 for polygon in outlines.polygons)
    snapped = write_outlines(snap_outlines(outlines, steps), holes=holes)
    return None if snapped == "[]" else f"{text[:start]}{snapped}{text[end:]}"


def bare(text: str) -> str:
    """The list in an answer, without the words around it; the text itself where there is none."""
    start, end = text.find("["), text.rfind("]") + 1
    return text[start:end] if end > start >= 0 else text
