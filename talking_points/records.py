"""Records that travel through the pipeline, with one explicit Arrow schema each.

Coordinates everywhere: pixels, x to the right, y down, floats as OpenCV gives them. Integers are pixel
centres, so the pixel of a point is ``(round(x), round(y))`` and it must exist in the image.
Boxes are ``[x, y, width, height]`` in pixels. Normalised coordinates are ``x / width`` and ``y / height``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Mask = NDArray[np.bool_]

Rle = Mapping[str, Any]
"""A mask as COCO's run lengths: ``size`` [height, width] and ``counts``."""

SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet")
"""Part-annotated sources, in the order of the published ``source`` ClassLabel."""

LABELS = (*SOURCES, "coco_parts", "added")
"""All names that the class label ``source`` can have; only ever appended to.

Datasets of the three alone declare them alone. ``coco_parts`` are a user's own annotations, ``added`` stands for
``images`` and every source of another package.
"""


REGION_LABELS = (*LABELS, "refcoco", "refcoco_plus", "refcocog", "images")
"""All names that the column ``source`` of instruction datasets can have."""


def source_label(name: str) -> str:
    """The name under which the rows of a source are published."""
    return name if name in LABELS else LABELS[-1]


Step = Literal["object_caption", "local_caption", "generate", "refine", "judge"]
"""Steps that ask a model."""
STEPS: tuple[Step, ...] = ("object_caption", "local_caption", "generate", "refine")
"""Steps that write text, in the order in which they run."""


@dataclass(frozen=True)
class Keypoint:
    """A named, annotated keypoint (AP-10K, MP-100): pixel coordinates and whether it is labelled."""

    name: str
    x: float
    y: float
    visible: bool


class MaskCrop(NamedTuple):
    """A mask of an image of ``shape`` (height, width), cut down to a window that holds all its pixels.

    ``mask`` is the bool array of the window ``rows``, ``columns``; outside it the mask is empty.
    """

    shape: tuple[int, int]
    rows: slice
    columns: slice
    mask: Mask

    def uncrop(self) -> Mask:
        """The mask of the whole image, bool (height, width)."""
        if self.mask.shape == self.shape:
            return self.mask
        full = np.zeros(self.shape, dtype=np.bool_)
        full[self.rows, self.columns] = self.mask
        return full


@dataclass(frozen=True)
class Region:
    """An annotated area. ``name`` is cleaned for reading, ``label`` is the source's own spelling.

    ``mask`` is a bool array (height, width); ``crop`` is the same in a window, its box where the source cuts masks,
    which spares the work on empty surroundings. Both are computed on first access and kept with the record.
    """

    name: str
    label: str
    id: int
    bbox: Box
    load_mask: Callable[[], Mask | MaskCrop] | None = field(default=None, repr=False, compare=False, kw_only=True)
    mask_exact: bool = field(default=True, kw_only=True)
    """False when the annotation's outline was unusable and its box stands in for it."""

    @cached_property
    def mask(self) -> Mask | None:
        return None if self.crop is None else self.crop.uncrop()

    @cached_property
    def crop(self) -> MaskCrop | None:
        if self.load_mask is None:
            return None
        loaded = self.load_mask()
        if isinstance(loaded, MaskCrop):
            return loaded
        height, width = loaded.shape
        return MaskCrop((height, width), slice(0, height), slice(0, width), loaded)


@dataclass(frozen=True)
class AnnotatedPart(Region):
    """A part of an object; its mask is the annotated part intersected with its object."""


@dataclass(frozen=True)
class AnnotatedObject(Region):
    """One object. ``instance_exact`` is False when the source cannot tell instances of a class apart.

    ``expressions`` are what people wrote to refer to it, one for each time it was referred to.
    """

    instance_exact: bool = True
    parts: tuple[AnnotatedPart, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    """Edges between keypoints, as pairs of indices; empty where the annotation has none."""
    expressions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One image with its annotations, the same for every source.

    ``image_path`` is absolute; ``relative_path`` is the POSIX path from the source's root.
    ``pixels`` is the decoded image, uint8 RGB (height, width, 3), EXIF orientation ignored.
    """

    source: str
    image_id: str
    image_path: Path
    relative_path: str
    width: int
    height: int
    split: str
    objects: tuple[AnnotatedObject, ...]
    annotation_path: str = ""
    load_pixels: Callable[[], NDArray[np.uint8]] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        if self.load_pixels is None:
            raise ValueError(f"record {self.image_id} carries no pixels: open it through a source")
        return self.load_pixels()


def stable_id(*fields: object) -> str:
    """A content hash of the given fields: 16 hex digits, the same on every machine and run."""
    return hashlib.sha256("\x1f".join(map(str, fields)).encode()).hexdigest()[:16]


def derive_seed(seed: int, *fields: object) -> int:
    """A 32-bit seed from (seed, record id, stage, ...): randomness that no sharding or order can change."""
    digest = hashlib.sha256("\x1f".join(map(str, (seed, *fields))).encode()).digest()
    return int.from_bytes(digest[:4], "big")


_BOX = pa.list_(pa.float32(), 4)
_POINT = pa.list_(pa.float32(), 2)

CANDIDATE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_path", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("image_phash", pa.uint64(), nullable=False),
        pa.field("image_width", pa.int32(), nullable=False),
        pa.field("image_height", pa.int32(), nullable=False),
        pa.field("object", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("object_bbox", _BOX, nullable=False),
        pa.field("part_bbox", _BOX, nullable=False),
        pa.field("instance_index", pa.int32(), nullable=False),
        pa.field("instance_count", pa.int32(), nullable=False),
        pa.field("instance_exact", pa.bool_(), nullable=False),
        pa.field("keypoint", _POINT, nullable=False),
        pa.field("sift_response", pa.float32(), nullable=False),
        pa.field("sift_size", pa.float32(), nullable=False),
        pa.field("sift_angle", pa.float32(), nullable=False),
        pa.field("object_location", pa.string(), nullable=False),
        pa.field("part_location", pa.string(), nullable=False),
        pa.field("point_location", pa.string(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
    ]
)
"""A keypoint inside an annotated part with its place in words: what the candidates stage writes."""


@dataclass(frozen=True)
class Candidate:
    """One row of ``CANDIDATE_SCHEMA``: a keypoint, where it lies, and the words for where it lies."""

    id: str
    source: str
    image_id: str
    image_path: str
    image_sha256: str
    image_phash: int
    image_width: int
    image_height: int
    object: str
    part: str
    object_bbox: Box
    part_bbox: Box
    instance_index: int
    instance_count: int
    instance_exact: bool
    keypoint: tuple[float, float]
    sift_response: float
    sift_size: float
    sift_angle: float
    object_location: str
    part_location: str
    point_location: str
    flags: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Candidate:
        """From a row of any table that has at least the columns of ``CANDIDATE_SCHEMA``."""
        values = {name: row[name] for name in CANDIDATE_SCHEMA.names}
        for name in ("object_bbox", "part_bbox", "keypoint", "flags"):
            values[name] = tuple(values[name])
        return cls(**values)
