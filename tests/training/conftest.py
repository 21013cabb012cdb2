"""Small models and points that the training tests share."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from talking_points.examples.config import FeatureConfig
from talking_points.examples.points import PointExample, PointSet
from talking_points.examples.words import Facts
from talking_points.models.base import TalkingPointsModel
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import tiny_config, train_tokenizer
from tests.publishing.conftest import hub, reached, run, start

__all__ = ["hub", "reached", "run", "start"]

SIZE = (96, 80)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def points(images: int = 3, per_image: int = 3, seed: int = 0) -> PointSet:
    """Points on noise, each with a description that gives its place away."""
    random = np.random.default_rng(seed)
    pixels = {
        f"image{number}": random.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8) for number in range(images)
    }
    examples: list[PointExample] = []
    for image in pixels:
        for _ in range(per_image):
            x, y = float(random.integers(SIZE[0])), float(random.integers(SIZE[1]))
            across, down = "left" if x < SIZE[0] / 2 else "right", "top" if y < SIZE[1] / 2 else "bottom"
            facts = Facts("dog", "head", f"is close to the {across} and {down} edges of the image", None, None, 0, 1)
            text = f"the dog is {down} {across} at {int(x)} and {int(y)}"
            examples.append(
                PointExample(
                    f"p{len(examples)}", image, "drawn", (x, y), SIZE, (0, 0, 50, 50), (0, 0, 20, 20), facts, text
                )
            )

    def decode(wanted: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        return ((image, Image.fromarray(array)) for image, array in pixels.items() if image in wanted)

    return PointSet(examples, decode)


def write_dataset(
    folder: Path,
    rows: int = 6,
    *,
    split: str = "train",
    places: Sequence[tuple[float, float]] | None = None,
    **changed: object,
) -> Path:
    """A dataset with the columns that training reads: two points per image.

    ``places`` are points in pixels of 50x40, each in an image of its own.
    """
    table = []
    rows, per_image = (rows, 2) if places is None else (len(places), 1)
    for number in range(rows):
        buffer = io.BytesIO()
        Image.fromarray(np.full((40, 50, 3), number // per_image, np.uint8)).save(buffer, "PNG")
        row = {
            "id": f"{number:016x}", "image": {"bytes": buffer.getvalue(), "path": None},
            "image_sha256": f"d{number // per_image}", "image_width": 50, "image_height": 40, "source": 0,
            "object": "dog", "part": "head",
            "object_bbox": [0.0, 0, 30, 30], "part_bbox": [0.0, 0, 10, 10], "instance_index": 0, "instance_count": 1,
            "keypoint": [float(number), 3.0] if places is None else list(places[number]),
            "object_location": "is in the center of the image", "part_location": "toward the top of the dog",
            "point_location": "in the center",
            "description": f"text {number}",
        }  # fmt: skip
        table.append({**row, **changed})
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("id", "image_sha256", "object", "part", "object_location",
               "part_location", "point_location", "description")},
            **{name: datasets.Value("int32") for name in ("image_width", "image_height", "instance_index",
               "instance_count")},
            **{name: datasets.List(datasets.Value("float32")) for name in ("object_bbox", "part_bbox", "keypoint")},
            "source": datasets.ClassLabel(names=["pascal_part116"]), "image": datasets.Image(),
        }
    )  # fmt: skip
    (folder / "data").mkdir(parents=True)
    rows_of_split = datasets.Dataset.from_list(table, features=features)
    rows_of_split.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def small(kind: type[TalkingPointsModel], seed: int = 0, blocks: int = 2, **fields: object) -> TalkingPointsModel:
    """The tiny preset, smaller still: 64 pixels, two blocks."""
    tokenizer = train_tokenizer([example.text for example in points(8).examples], 300)
    torch.manual_seed(seed)
    config = tiny_config(tokenizer, 64)
    config.text_config.num_hidden_layers = blocks
    config.text_config.hidden_size = 96
    config.text_config.intermediate_size = 192
    config.text_config.head_dim = 16
    config.vision_config.hidden_sizes = [16, 16, 32, 32]
    config.query_decoder_layers = 3
    for name, value in fields.items():
        setattr(config, name, value)
    model = kind(config)
    model.tokenizer = tokenizer
    return model


@pytest.fixture
def descriptor() -> PointDescriptor:
    return small(PointDescriptor)


@pytest.fixture
def localizer() -> PointLocalizer:
    return small(PointLocalizer, seed=1)


@pytest.fixture
def features(tmp_path: Path) -> FeatureConfig:
    return FeatureConfig(folder=tmp_path / "features", limit_gb=1.0)
