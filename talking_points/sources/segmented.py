"""Objects that a model finds where an image has none, or whose outline it draws where there is a box alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talking_points.grounding.grammar import read_lenient, write_point
from talking_points.grounding.outlines import Point, point_to_unit
from talking_points.grounding.rasters import box_iou, iou, mask_box, rasterise
from talking_points.records import Rle
from talking_points.sources.coco_parts import Outline
from talking_points.whole_files import file_sha256

SAME = 0.5
"""Overlap from which two outlines are of one object, and an outline is of the object in a box."""

SMALLEST = 64
"""Pixels of an object that is worth the name."""

_FRAME = re.compile(r"^(?:it is|that is|this is|the point is on|there is)\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
_WEIGHTS = ("*.safetensors", "config.json", "adapter_config.json")


class PointSegmenter(Protocol):
    """What is asked for the thing at a point: its outline (kind ``point_to_mask``) and its name (``point_to_text``)."""

    def question(self, kind: str, **elements: str) -> str:
        """What the model is asked for a kind of instruction."""
        ...

    def answer(self, images: Sequence[Any], questions: Sequence[str]) -> list[str]:
        """Answers to one question about each image."""
        ...

    def scale(self, width: int, height: int) -> Point:
        """What the coordinates it writes are divided by to become shares of the image's size."""
        ...


@lru_cache(maxsize=1)
def open_point_segmenter(name: str) -> PointSegmenter:
    """The segmenter in a folder or repository, loaded once. Raises ``ConfigError`` where there is none."""
    from talking_points.models.loading_bars import hide_loading_bars
    from talking_points.models.segmenting import open_segmenter

    hide_loading_bars()
    return open_segmenter(name, "segmenter")


def identify_weights(name: str) -> str:
    """What tells one model from another in the listing of a source: a digest of its files, or its name on the Hub."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    files = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def grid_points(width: int, height: int, count: int) -> list[Point]:
    """``count`` x ``count`` points spread over an image, in pixels, integers being pixel centres."""
    steps = (np.arange(count) + 0.5) / count
    return [(float(int(x * width)), float(int(y * height))) for y in steps for x in steps]


def outline_points(model: PointSegmenter, pixels: NDArray[np.uint8], points: Sequence[Point]) -> list[Rle | None]:
    """What the model outlines at each point, as run lengths; None where it writes nothing that can be used."""
    height, width = pixels.shape[:2]
    scale = model.scale(width, height)
    found: list[Rle | None] = []
    for text in _ask(model, "point_to_mask", pixels, points):
        outlines = read_lenient(text, scale=scale).outlines
        found.append(rasterise(outlines, width, height) if outlines.polygons else None)
    return found


def find_objects(
    model: PointSegmenter, pixels: NDArray[np.uint8], points: Sequence[Point]
) -> list[tuple[str, Outline]]:
    """The different things at the points, largest agreement first: name and outline. Overlapping ones are one thing."""
    groups: list[tuple[Rle, list[Point]]] = []
    for point, runs in zip(points, outline_points(model, pixels, points), strict=True):
        if runs is None or Outline(runs).area < SMALLEST:
            continue
        own = next((group for group in groups if iou(group[0], runs) >= SAME), None)
        if own is None:
            groups.append((runs, [point]))
        else:
            own[1].append(point)
    groups.sort(key=lambda group: -len(group[1]))
    names = _ask(model, "point_to_text", pixels, [group[1][0] for group in groups])
    return [(clean_answer(name), Outline(runs)) for name, (runs, _) in zip(names, groups, strict=True)]


def outline_box(model: PointSegmenter, pixels: NDArray[np.uint8], box: Sequence[float]) -> Outline | None:
    """What the model outlines in the middle of a box, if it fills about that box; else None."""
    x, y, width, height = box
    (runs,) = outline_points(model, pixels, [(x + width / 2 - 0.5, y + height / 2 - 0.5)])
    return Outline(runs) if runs is not None and box_iou(mask_box(runs), box) >= SAME else None


def clean_answer(text: str) -> str:
    """A name out of the answer to what something is; "object" where there is none."""
    words = _ARTICLE.sub("", _FRAME.sub("", " ".join(text.split()).strip(" .!\"'")))
    named = words.isprintable() and any(map(str.isalnum, words)) and len(words) <= 60 and not set(words) & set("[]{}<>")
    return words.lower() if named else "object"


def _ask(model: PointSegmenter, kind: str, pixels: NDArray[np.uint8], points: Sequence[Point]) -> list[str]:
    if not points:
        return []
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    scale = model.scale(width, height)
    written = [write_point(point_to_unit(*point, width, height), scale=scale) for point in points]
    questions = [model.question(kind, point=point) for point in written]
    return model.answer([image] * len(points), questions)
