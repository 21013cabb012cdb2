"""Regions as they are asked about: what segmenters learn from and are judged on, from instruction datasets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from talking_points.config import ConfigError
from talking_points.dataset_files import dataset_file, dataset_names, open_parquet, read_group
from talking_points.examples.example_sets import ExampleSet
from talking_points.examples.points import derangement
from talking_points.grounding.grammar import UNIT, write_box, write_point
from talking_points.grounding.outlines import Point, box_to_unit, point_to_unit
from talking_points.grounding.rasters import decode_mask, encode_mask
from talking_points.image_files import read_rgb
from talking_points.instructions.rows import InstructionRow, read_instructions
from talking_points.instructions.schema import COLUMNS
from talking_points.records import Box, Rle


@dataclass(frozen=True)
class RegionExample:
    """One question about one region. ``image`` is the digest of its image's file, ``text`` the answer.

    size: width and height of the image; mask: run lengths at that size; box: [x, y, width, height] in pixels;
    point: of the region, pixels. region: names the region, whatever is asked about it. ceiling: the overlap of the
    mask with its own written outlines.
    """

    id: str
    image: str
    size: tuple[int, int]
    source: str
    region: str
    kind: str
    expression: str
    question: str
    text: str
    mask: Rle
    box: Box
    point: tuple[float, float]
    ceiling: float

    @classmethod
    def of(cls, row: InstructionRow) -> RegionExample:
        """Of a row of an instruction dataset."""
        return cls(
            row.id, row.image_sha256, (row.width, row.height), row.source, row.region, row.kind, row.expression,
            row.question, row.answer, row.mask, row.box, row.point, row.round_trip_iou,
        )  # fmt: skip

    def elements(self, scale: Point = UNIT) -> dict[str, str]:
        """What a question may name the region by, as text, for a model whose coordinates have this ``scale``."""
        point, box = point_to_unit(*self.point, *self.size), box_to_unit(self.box, *self.size)
        written = {"point": write_point(point, scale=scale), "box": write_box(box, scale=scale)}
        return {"expression": self.expression, **written}


@dataclass(frozen=True)
class RegionSet(ExampleSet[RegionExample]):
    """Questions about regions and a way to their images."""

    def of_kinds(self, kinds: Collection[str]) -> RegionSet:
        """Those of some kinds; of all where none is named."""
        return replace(self, examples=[one for one in self.examples if not kinds or one.kind in kinds])

    def with_images_exchanged(self, seed: int) -> RegionSet:
        """Every question about the image of another region, with the truth that it had: what an answer that does not
        look would still find."""
        images = sorted({one.image for one in self.examples})
        order = derangement(len(images), seed)
        other = {image: images[place] for image, place in zip(images, order, strict=True)}
        return replace(self, examples=[replace(one, image=other[one.image]) for one in self.examples])


def load_regions(
    folder: str | Path, split: str, kinds: Sequence[str] = (), limit: int | None = None, seed: int = 0
) -> RegionSet:
    """The questions of an instruction dataset's split, of some ``kinds`` or all; ``limit`` draws so many.

    Raises ``ConfigError`` for a split without such questions, and for references instead of images when these are
    asked for.
    """
    path = Path(folder)
    examples = [RegionExample.of(row) for row in read_instructions(path, split, images=False)]

    images = StoredImages(path)
    regions = RegionSet(examples, images.decode).of_kinds(kinds)
    if not len(regions):
        raise ConfigError(
            f"split '{split}' of the instruction dataset {path} asks nothing of the kinds {', '.join(kinds)}: found "
            f"{', '.join(sorted({one.kind for one in examples})) or 'no rows'}"
        )
    return regions.sample(limit, seed) if limit else regions


class StoredImages:
    """The images of an instruction dataset by digest; which file holds which is looked up once, when first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, str] = {}

    def decode(self, digests: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        """Those of some digests, each once, file by file. Raises ``ConfigError`` where there are references alone."""
        left = set(digests)
        if not self._files and left:
            for name in dataset_names(self.root, "data/*.parquet"):
                for table in self._tables(name, ("image_sha256",)):
                    for digest in table["image_sha256"].to_pylist():
                        self._files.setdefault(digest, name)
        for name in dict.fromkeys(sorted(self._files[digest] for digest in left)):
            for table in self._tables(name, ("image_sha256", "image")):
                for place, digest in enumerate(table["image_sha256"].to_pylist()):
                    if digest in left:
                        left.remove(digest)
                        yield digest, self._open(table["image"][place].as_py())

    def _tables(self, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        path = dataset_file(self.root, name)
        with open_parquet(path, columns, COLUMNS) as file:
            for group in range(file.num_row_groups):
                yield read_group(file, group, columns, path, COLUMNS, ("image",))

    def _open(self, stored: Mapping[str, Any] | None) -> Image.Image:
        if not stored or not stored.get("bytes"):
            raise ConfigError(
                f"the instruction dataset {self.root} holds references instead of images: put them back with "
                "'talking-points rehydrate' first"
            )
        return read_rgb(stored["bytes"])


def shrink_mask(mask: Rle, longest: int) -> Rle:
    """A mask scaled down to ``longest`` pixels on its longer side; one that is no larger as it is."""
    height, width = mask["size"]
    scale = longest / max(height, width)
    if scale >= 1:
        return mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = cv2.resize(decode_mask(mask).view(np.uint8), size, interpolation=cv2.INTER_AREA)
    return encode_mask(smaller.astype(bool))


def mean_shape(examples: Iterable[RegionExample], side: int = 64) -> np.ndarray:
    """How often each cell of the image lies in the region, (side, side) in [0, 1]: what is known without looking."""
    total, count = np.zeros((side, side)), 0
    for one in examples:
        smaller = cv2.resize(decode_mask(one.mask).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        total, count = total + smaller, count + 1
    return total / max(count, 1)
