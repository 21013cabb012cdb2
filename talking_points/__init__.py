"""Describe a single pixel in words, and find it again from the words.

The names below are the front door; each is imported when it is first asked for, so that reading a dataset needs no
torch. Coordinates everywhere: pixels, x to the right, y down, integers are pixel centres.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from talking_points.examples.batch_answers import describe_rows, localize_rows
    from talking_points.examples.points import load_points
    from talking_points.models.answerer import PointAnswerer
    from talking_points.models.descriptor import PointDescriptor
    from talking_points.models.localizer import PointLocalizer
    from talking_points.models.segmenter import Segmenter
    from talking_points.sources import open_source

__all__ = [
    "PointAnswerer",
    "PointDescriptor",
    "PointLocalizer",
    "Segmenter",
    "describe_rows",
    "load_points",
    "localize_rows",
    "open_source",
]

_PLACES = {
    "PointAnswerer": "talking_points.models.answerer",
    "PointDescriptor": "talking_points.models.descriptor",
    "PointLocalizer": "talking_points.models.localizer",
    "Segmenter": "talking_points.models.segmenter",
    "describe_rows": "talking_points.examples.batch_answers",
    "load_points": "talking_points.examples.points",
    "localize_rows": "talking_points.examples.batch_answers",
    "open_source": "talking_points.sources",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'talking_points' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
