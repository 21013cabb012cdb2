"""Sentences about points of parts, from a built dataset of points: more words for these parts, and their points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from talking_points.config import fingerprint
from talking_points.dataset_files import dataset_file, dataset_names, read_groups
from talking_points.dataset_manifest import read_manifest
from talking_points.records import LABELS, Box, source_label

_COLUMNS = ("source", "image_path", "object", "part", "part_bbox", "keypoint", "description")

PartKey = tuple[str, str, str, str, tuple[int, ...]]
"""Source, image path, object, part, and the part's box in whole pixels."""


@dataclass(frozen=True)
class DescribedPoint:
    """A point in pixels, integers being pixel centres, and the sentence that describes it."""

    point: tuple[float, float]
    text: str


def part_key(source: str, image_path: str, name: str, part: str, box: Box) -> PartKey:
    """What a part is known by in both datasets."""
    return source_label(source), image_path, name, part, tuple(round(value) for value in box)


def read_described_points(folder: str | Path) -> Mapping[PartKey, list[DescribedPoint]]:
    """The points of all splits of a built dataset. Raises ``DatasetError`` for a folder that holds none."""
    root = Path(folder)
    read_manifest(root)
    found: dict[PartKey, list[DescribedPoint]] = {}
    for name in dataset_names(root, "data/*.parquet"):
        for table in read_groups(dataset_file(root, name), _COLUMNS):
            for row in table.to_pylist():
                key = part_key(LABELS[row["source"]], row["image_path"], row["object"], row["part"], row["part_bbox"])
                found.setdefault(key, []).append(DescribedPoint(tuple(row["keypoint"]), row["description"]))
    return found


def identify_points(folder: str | Path) -> str:
    """A digest of the rows of a built dataset. Raises ``DatasetError``."""
    files = read_manifest(Path(folder))["files"]
    return fingerprint({file["path"]: file["sha256"] for file in files})
