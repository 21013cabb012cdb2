"""MP-100's categories as drawn things: names, folders, partitions and keypoint annotations, with the real quirks.

About one picture in forty is named and not there, one object in forty has a keypoint outside its image, and keypoints
that their own object hides have a visibility of 1, as the real files have.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.records import derive_seed
from talking_points.sources.drawn.canvas import Landmark
from talking_points.sources.drawn.scenes import MP100_CATEGORIES, DrawnScene
from talking_points.sources.keypoint_sets import KeypointSet, readable, set_of
from talking_points.sources.labels import load_labels

PARTITIONS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((2, 3, 30, 42, 53, 68, 84), (20, 58, 28)),
    ((20, 87, 58, 28, 16, 49), (100, 55, 41)),
    ((100, 55, 71, 41, 72), (52, 9, 46)),
    ((52, 27, 9, 46, 45, 98), (85, 15, 59)),
    ((76, 85, 15, 59, 86, 32, 38, 51), (2, 68, 53)),
)
"""(test, val) of the five partitions; everything else that is drawn is trained on.

The first test set is what is drawn of the real one. Each holds animals, whose names others teach, and a family or a
thing whose names nothing else has; every category is tested once.
"""

FILES = tuple(
    f"annotations/mp100_split{number}_{part}.json"
    for number in range(1, len(PARTITIONS) + 1)
    for part in ("train", "val", "test")
)

_FOLDERS = {72: "human_body"}
"""Folders that are not called as their category."""

_NAMELESS = ("vehicle", "chair", "sofa", "bed", "table")
"""Sets whose categories carry no names of keypoints in the real files."""

_SKELETONS: dict[str, str] = {
    "quadruped_body": "0-1 0-2 1-2 2-3 3-4 3-5 5-6 6-7 3-8 8-9 9-10 4-11 11-12 12-13 4-14 14-15 15-16",
    "person_body": "15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6",
    "bird_body": "1-5 5-4 4-9 9-0 0-13 1-14 14-3 3-2 2-13 5-6 5-10 2-7 2-11 0-8 0-12",
    "vehicle": "0-2 1-3 0-1 2-3 9-11 10-12 9-10 11-12 4-0 4-9 4-5 5-1 5-10 6-2 6-11 7-3 7-12 6-7 8-6",
    "chair": "0-4 1-5 2-6 3-7 4-5 5-6 6-7 7-4 6-9 7-8 8-9",
    "sofa": "0-2 1-3 2-3 2-4 4-5 5-3 6-2 7-9 8-10 9-10 9-11 11-12 12-10 13-9 6-13 3-10",
    "bed": "0-2 1-3 2-3 2-4 5-7 6-8 7-8 7-9 4-9 3-8",
    "table": "0-1 1-3 3-2 2-0 0-4 1-5 2-6 3-7",
}
"""Edges, counted from 0."""


def files_of(category: int) -> tuple[str, ...]:
    """The joint files that a category's pictures are listed in: one of every partition."""
    names = []
    for number, (test, val) in enumerate(PARTITIONS, start=1):
        part = "test" if category in test else "val" if category in val else "train"
        names.append(f"annotations/mp100_split{number}_{part}.json")
    return tuple(names)


def file_categories(name: str) -> list[dict[str, Any]]:
    """What a joint file says of its own categories; 54 of the real ones have no names of keypoints."""
    listed = []
    for category in sorted(MP100_CATEGORIES.values()):
        if name not in files_of(category):
            continue
        keypoints = set_of(category)
        entry: dict[str, Any] = {"id": category, "name": _name(category), "supercategory": _name(category)}
        if keypoints.key not in _NAMELESS:
            entry["keypoints"] = [point.replace(" ", "_") for point in keypoints.names]
        edges = _SKELETONS[keypoints.key].split()
        listed.append({**entry, "skeleton": [[int(end) for end in edge.split("-")] for edge in edges]})
    return listed


def picture_of(category: int, number: int) -> str:
    """A picture's ``file_name``, below the folder of images."""
    return f"{_FOLDERS.get(category, _name(category))}/{number:012d}.jpg"


def is_missing(number: int) -> bool:
    """Whether a picture is listed and not there."""
    return derive_seed(0, "drawn mp100 missing", number) % 40 == 0


def annotations_of(
    scene: DrawnScene, number: int, image: int, boxes: list[tuple[float, ...] | None]
) -> tuple[str, ...]:
    """The annotations of a picture's objects as JSON; ``boxes`` are theirs, None for those that are not seen."""
    category = MP100_CATEGORIES[scene.label]
    found = []
    for position, box in enumerate(boxes):
        keypoints = _keypoints(scene, position, set_of(category))
        if box is None or not any(keypoints):
            continue
        if derive_seed(0, "drawn mp100 outside", number, position) % 40 == 0:
            first = next(index for index in range(2, len(keypoints), 3) if keypoints[index])
            keypoints[first - 2] = float(scene.ids.shape[1] + 5)
        entry = {"id": number * 100 + position, "image_id": image, "category_id": category, "iscrowd": 0,
                 "bbox": list(box), "area": box[2] * box[3], "keypoints": keypoints,
                 "num_keypoints": sum(value > 0 for value in keypoints[2::3])}  # fmt: skip
        found.append(json.dumps(entry))
    return tuple(found)


def _keypoints(scene: DrawnScene, position: int, keypoints: KeypointSet) -> list[float]:
    """x, y, v of every keypoint in the set's order: 2 seen, 1 hidden by the object itself, else all three 0."""
    landmarks = {readable(landmark.name): landmark for landmark in scene.instances[position].landmarks}
    values: list[float] = []
    for name in keypoints.names:
        landmark = landmarks.get(name)
        seen = 0 if landmark is None else _visibility(scene, position, landmark)
        values += [round(landmark.x, 2), round(landmark.y, 2), seen] if landmark and seen else [0.0, 0.0, 0]
    return values


def _visibility(scene: DrawnScene, position: int, landmark: Landmark) -> int:
    x, y = round(landmark.x), round(landmark.y)
    height, width = scene.ids.shape
    if min(landmark.x, landmark.y) < 0 or x >= width or y >= height:
        return 0
    around = scene.ids[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
    regions = [scene.regions[number - 1] for number in _shown(around)]
    own = [region for region in regions if region.instance == position]
    if not own:
        return 0
    return 2 if landmark.part is None or any(region.part == landmark.part for region in own) else 1


def _shown(ids: NDArray[np.int16]) -> list[int]:
    return [int(number) for number in np.unique(ids) if number > 0]


@lru_cache
def _name(category: int) -> str:
    return next(str(item["name"]) for item in load_labels("mp100")["categories"] if item["id"] == category)
