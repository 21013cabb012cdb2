"""Candidates for the tests of this folder: real phrases of ``spatial`` for any geometry, all label lists."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from hypothesis import strategies as st

from talking_points.candidates.spatial import object_location, part_location, point_location
from talking_points.records import Box, Candidate

WIDTH, HEIGHT = 500, 375


def make_candidate(
    object_name: str = "cat",
    part_name: str = "paw",
    object_bbox: Box = (50.0, 20.0, 420.0, 340.0),
    part_bbox: Box = (380.0, 40.0, 60.0, 50.0),
    keypoint: tuple[float, float] = (420.0, 60.0),
    **changes: Any,
) -> Candidate:
    """A candidate whose phrases follow from its boxes."""
    values: dict[str, Any] = {
        "id": "0123456789abcdef",
        "source": "pascal_part116",
        "image_id": "2008_000001",
        "image_path": "images/train/2008_000001.jpg",
        "image_sha256": "0" * 64,
        "image_phash": 0,
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "object": object_name,
        "part": part_name,
        "object_bbox": object_bbox,
        "part_bbox": part_bbox,
        "instance_index": 0,
        "instance_count": 1,
        "instance_exact": True,
        "keypoint": keypoint,
        "sift_response": 0.05,
        "sift_size": 6.0,
        "sift_angle": 30.0,
        "object_location": object_location(object_bbox, WIDTH, HEIGHT),
        "part_location": part_location(part_bbox, object_bbox, object_name),
        "point_location": point_location(keypoint, part_bbox),
    }
    return Candidate(**values | changes)


@lru_cache(maxsize=1)
def annotated_pairs() -> tuple[tuple[str, str], ...]:
    """Every (object, part) pair of the three sources' label lists, as records name them."""
    pairs: set[tuple[str, str]] = set()
    for source in ("pascal_part116", "ade20k_part234", "partimagenet"):
        labels = json.loads((resources.files("talking_points.sources") / "labels" / f"{source}.json").read_text())
        for part in labels["parts"]:
            name = part.get("object") or part["supercategory"].lower()
            pairs.add((name, part.get("spoken_part") or part["part"]))
    return tuple(sorted(pairs))


def _inner(draw: st.DrawFn, frame: Box, least: float) -> Box:
    x, y, width, height = frame
    inner_width = draw(st.floats(least, 1.0)) * width
    inner_height = draw(st.floats(least, 1.0)) * height
    left = x + draw(st.floats(0, 1)) * (width - inner_width)
    top = y + draw(st.floats(0, 1)) * (height - inner_height)
    return left, top, inner_width, inner_height


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    """Candidates of any category, geometry and instance order."""
    object_name, part_name = draw(st.sampled_from(annotated_pairs()))
    object_bbox = _inner(draw, (0.0, 0.0, float(WIDTH), float(HEIGHT)), 0.2)
    part_bbox = _inner(draw, object_bbox, 0.1)
    x, y, width, height = part_bbox
    keypoint = (x + draw(st.floats(0, 0.98)) * width, y + draw(st.floats(0, 0.98)) * height)
    count = draw(st.integers(1, 24))
    return make_candidate(
        object_name,
        part_name,
        object_bbox,
        part_bbox,
        (min(keypoint[0], WIDTH - 1.0), min(keypoint[1], HEIGHT - 1.0)),
        instance_count=count,
        instance_index=draw(st.integers(0, count - 1)),
        instance_exact=draw(st.booleans()),
    )
