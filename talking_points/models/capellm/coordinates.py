"""A point as text and back: ``[0.123,0.456]``, fractions of the crop's side to the right and down."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[-+]?[\w.]*\d[\w.]*(?:(?<=[eE])[-+]\d+)?")
_FRACTION = re.compile(r"0\.\d+|1\.0+")


def format_point(x: float, y: float, decimals: int = 3, clip: bool = True) -> str:
    """Fractions (x, y) of the crop's side in [0, 1) as the text of an answer, without its leading space.

    What would round to 1 is written as the largest fraction below it (0.999): there is no token for it, and no
    pixel. ``clip=False`` writes it as the official code does. Raises ValueError outside [0, 1).
    """
    if not (0 <= x < 1 and 0 <= y < 1):
        raise ValueError(f"expected fractions of the crop in [0, 1), found ({x}, {y}): leave points outside it out")
    largest = 1 - 10**-decimals if clip else 1.0
    return f"[{min(x, largest):.{decimals}f},{min(y, largest):.{decimals}f}]"


def parse_point(text: str, end: str | None = None) -> tuple[float, float] | None:
    """The fractions in an answer, up to its ``end`` marker; None unless it holds two numbers of [0, 1] and no other.

    Signs, exponents, further numbers and numbers that only contain a fraction ("10.5") make an answer unparsed.
    """
    if end and end in text:
        text = text[: text.index(end)]
    pieces = [piece.rstrip(".") for piece in _PIECE.findall(text)]
    if len(pieces) != 2 or not all(_FRACTION.fullmatch(piece) for piece in pieces):
        return None
    x, y = (1 - 10 ** -len(piece[2:]) if piece.startswith("1") else float(piece) for piece in pieces)
    return x, y
