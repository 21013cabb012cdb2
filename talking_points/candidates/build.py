"""From one image record to its candidates: keypoints, their places in words, and the image's perceptual hash."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import KeypointConfig
from talking_points.candidates.sift import PointInPart, select_keypoints
from talking_points.candidates.spatial import instance_order, object_location, part_location, point_location
from talking_points.records import AnnotatedObject, Box, Candidate, ImageRecord, stable_id

ID_DECIMALS = 3
"""Decimals of a pixel that enter a candidate's id."""


@dataclass(frozen=True)
class Instance:
    """Which of the objects of one name, counted from 0 from the left, of how many, and whether that may be said."""

    index: int
    count: int
    ordered: bool


def build_candidates(
    record: ImageRecord, image_sha256: str, config: KeypointConfig
) -> tuple[list[Candidate], Counter[str]]:
    """The candidates of one image, and counts by reason of what gave none (see ``select_keypoints``).

    ``image_sha256``: digest of the image file's own bytes. ``instance_index`` counts from 0, from the left, among the
    objects of the same name. ``instance_exact`` says that an ordinal may be spoken: the source tells the instances
    apart, and their order from left to right is plain to see. Flags: ``low_contrast_keypoint`` for a point of the
    second pass, ``approximate_mask`` where a box stands in for the part's unusable outline, ``reduced_detection`` where
    the image was too large to be searched at full size.
    """
    points, reasons = select_keypoints(record, config)
    if not points:
        return [], reasons
    phash = perceptual_hash(record.pixels)
    instances = find_instances(record)
    coarse = config.places == "coarse"
    return [_candidate(record, point, instances, image_sha256, phash, coarse) for point in points], reasons


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """The 64-bit DCT hash of an image (OpenCV's ``img_hash.PHash``). ``pixels``: uint8 RGB (height, width, 3)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return int.from_bytes(cv2.img_hash.pHash(grey).tobytes(), "big")


def find_instances(record: ImageRecord) -> list[Instance]:
    """Rank of each object among those of its name, how many these are, and whether the rank may be spoken."""
    by_name: dict[str, list[int]] = {}
    for index, annotated in enumerate(record.objects):
        by_name.setdefault(annotated.name, []).append(index)
    instances: dict[int, Instance] = {}
    for members in by_name.values():
        ranks, plain = instance_order([record.objects[index].bbox for index in members], record.width)
        exact = plain and all(record.objects[index].instance_exact for index in members)
        for index, rank in zip(members, ranks, strict=True):
            instances[index] = Instance(rank, len(members), exact)
    return [instances[index] for index in range(len(record.objects))]


def _candidate(
    record: ImageRecord,
    point: PointInPart,
    instances: list[Instance],
    image_sha256: str,
    phash: int,
    coarse: bool,
) -> Candidate:
    annotated: AnnotatedObject = record.objects[point.object_index]
    part = annotated.parts[point.part_index]
    instance = instances[point.object_index]
    object_box, part_box = _round_box(annotated.bbox), _round_box(part.bbox)
    flags = (
        ("low_contrast_keypoint", point.low_contrast),
        ("approximate_mask", not part.mask_exact),
        ("reduced_detection", point.reduced),
    )
    return Candidate(
        id=stable_id(
            record.source,
            record.image_id,
            f"{annotated.label}:{instance.index}",
            f"{part.label}:{point.part_index}",
            f"{point.x:.{ID_DECIMALS}f},{point.y:.{ID_DECIMALS}f}",
        ),
        source=record.source,
        image_id=record.image_id,
        image_path=record.relative_path,
        image_sha256=image_sha256,
        image_phash=phash,
        image_width=record.width,
        image_height=record.height,
        object=annotated.name,
        part=part.name,
        object_bbox=object_box,
        part_bbox=part_box,
        instance_index=instance.index,
        instance_count=instance.count,
        instance_exact=instance.ordered,
        keypoint=(point.x, point.y),
        sift_response=point.response,
        sift_size=point.size,
        sift_angle=point.angle,
        object_location=object_location(object_box, record.width, record.height, coarse=coarse),
        part_location=part_location(part_box, object_box, annotated.name, coarse=coarse),
        point_location=point_location((point.x, point.y), part_box, coarse=coarse),
        flags=tuple(flag for flag, raised in flags if raised),
    )


def _round_box(box: Box) -> Box:
    """The box with the precision of the published table, so that every phrase can be derived again from its row."""
    x, y, width, height = (float(np.float32(value)) for value in box)
    return x, y, width, height
