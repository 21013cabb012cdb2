"""Named keypoints as rows of a dataset, so that a localizer can learn from them: a crop, a text, a place.

One row for each labelled keypoint of an object, in the crop that an answerer would be shown and with the text that the
evaluation of named keypoints asks a localizer with. Further copies of an object are cropped as training crops are.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from talking_points.config import ConfigError, Section
from talking_points.dataset_schema import triplet_schema
from talking_points.descriptions.keypoint_texts import Texts
from talking_points.examples.config import KeypointFiles
from talking_points.examples.conversations import ConversationSettings, draw_crop
from talking_points.examples.keypoints import PoseExample, PoseSet
from talking_points.examples.pose_files import open_poses, pixels_of, texts_for
from talking_points.models.capellm.crops import Crop, clip_box
from talking_points.records import LABELS, stable_id
from talking_points.whole_files import writing_whole

ROWS = 2000
"""Rows that are written at a time."""


class PoseRowsConfig(Section):
    """Everything that ``write-pose-rows`` needs."""

    output: Path = Field(description="folder of the dataset that is written")
    keypoints: KeypointFiles = KeypointFiles()
    splits: list[str] = Field(default=["train", "test"], min_length=1, description="each becomes a split of its own")
    texts: str | None = Field(default="rules", description="author or file of the descriptions; null: names alone")
    image_size: int = Field(default=96, ge=32, description="side of a crop, pixels: that of the localizer")
    crop_padding: float = Field(default=1.25, ge=1, description="side of a crop in longer sides of the object's box")
    copies: int = Field(default=1, ge=1, description="crops of a training object; all but the first drawn at random")
    seed: int = 0


def say_keypoint(name: str, text: str | None) -> str:
    """What a localizer is asked: the description, or a sentence with the name where there is none."""
    return text or f"The point is the {name} of the object."


def write_pose_rows(config: PoseRowsConfig) -> dict[str, int]:
    """Write ``data/<split>-00000.parquet`` of every split into the output; returns the rows of each.

    Raises ``ConfigError`` for keypoints or descriptions that are not there.
    """
    if config.keypoints.rows is not None:
        raise ConfigError("keypoints.rows: these are rows already; expected keypoints.root or keypoints.own")
    planned = {f"{split}-00000.parquet" for split in config.splits}
    others = sorted(path.name for path in (config.output / "data").glob("*.parquet") if path.name not in planned)
    if others or (config.output / "manifest.json").exists():
        raise ConfigError(
            f"output: {config.output} holds another dataset ({', '.join(others[:3]) or 'manifest.json'}): expected an "
            "empty folder, or rows of named keypoints to replace"
        )
    opened = {split: open_poses(config.keypoints, split, config.seed) for split in config.splits}
    texts = {split: texts_for(poses, config.texts) for split, poses in opened.items()}
    counts = {}
    for split, poses in opened.items():
        copies = config.copies if split == "train" else 1
        with writing_whole(config.output / "data" / f"{split}-00000.parquet") as path:
            counts[split] = _write(path, rows_of(poses, texts[split], config, copies))
    return counts


def rows_of(poses: PoseSet, texts: Texts, config: PoseRowsConfig, copies: int) -> Iterator[dict[str, Any]]:
    """The rows of all objects, images decoded one after another."""
    drawn = ConversationSettings(size=config.image_size, padding=config.crop_padding, seed=config.seed)
    for one, pixels in pixels_of(poses, poses.examples):
        for copy in range(copies):
            box = clip_box(one.box, *one.size)
            plain = Crop.of_box(box, config.image_size, config.crop_padding)
            crop = draw_crop(one, drawn, copy, -1)[0] if copy else plain
            yield from _rows(one, crop, pixels, texts, copy)


def _rows(one: PoseExample, crop: Crop, pixels: NDArray[np.uint8], texts: Texts, copy: int) -> Iterator[dict[str, Any]]:
    buffer = io.BytesIO()
    Image.fromarray(crop.warp(pixels)).save(buffer, "PNG")
    image = buffer.getvalue()
    inside = crop.contains(one.points) & one.visible
    places = np.clip(crop.forward(one.points), 0, crop.size - 1)
    box = [0.0, 0.0, float(crop.size), float(crop.size)]
    for index in np.flatnonzero(inside):
        name = one.keypoints.names[index]
        x, y = places[index].tolist()
        yield {
            "id": stable_id(one.id, copy, name),
            "image": {"bytes": image, "path": None},
            "image_id": one.image,
            "image_path": "",
            "image_sha256": hashlib.sha256(image).hexdigest(),
            "image_width": crop.size,
            "image_height": crop.size,
            "source": LABELS.index("added"),
            "object": one.category_name,
            "part": name,
            "object_bbox": box,
            "part_bbox": box,
            "instance_index": 0,
            "instance_count": 1,
            "keypoint": [x, y],
            "keypoint_normalized": [x / crop.size, y / crop.size],
            **dict.fromkeys(("object_location", "part_location", "point_location"), ""),
            "description": say_keypoint(name, texts.get((one.keypoints.key, name))),
        }


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    schema, count = triplet_schema(LABELS), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == ROWS:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                count, waiting = count + len(waiting), []
        writer.write_table(pa.Table.from_pylist(waiting, schema))
    return count + len(waiting)
