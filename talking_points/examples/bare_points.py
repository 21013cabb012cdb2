"""Labelled keypoints of any source as points without texts: what adaptation and transfer are measured on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from talking_points.candidates.spatial import instance_order, object_location
from talking_points.config import ConfigError
from talking_points.examples.config import KeypointsConfig
from talking_points.examples.points import PointExample, PointSet
from talking_points.examples.words import Facts
from talking_points.image_files import read_rgb
from talking_points.records import AnnotatedObject, ImageRecord, stable_id
from talking_points.sources import open_source
from talking_points.sources.labels import ap10k_families


def load_bare_points(config: KeypointsConfig, limit: int | None = None, seed: int = 0) -> PointSet:
    """The labelled keypoints of the wanted categories (paper, section 3.1), at most ``limit`` of them, drawn by seed.

    The object's place and its order among its like are worded from its box, so that the truth of words can be judged.
    Raises ``ConfigError`` where there are none, and ``SourceError`` for what is no such source.
    """
    if config.root is None:
        raise ConfigError("keypoints without descriptions are needed: set keypoints.root to the folder of their source")
    families = ap10k_families() if config.source == "ap10k" else {}
    wanted = set(config.categories)
    # The reader leaves out other families before it decodes an image.
    options: dict[str, Any] = {"families": sorted(wanted)} if wanted and wanted <= set(families.values()) else {}
    source = open_source(config.source, config.root, config.split, **options)
    examples: list[PointExample] = []
    files: dict[str, Path] = {}
    for record in source:
        digest = stable_id(source.name, record.image_id)
        objects = [
            item
            for item in record.objects
            if not wanted or wanted & {item.name, item.label, str(item.id), families.get(item.id)}
        ]
        for item in objects:
            examples += _list_points(source.name, digest, record, item)
        if objects:
            files[digest] = record.image_path
    if not examples:
        raise ConfigError(f"no labelled keypoints of {', '.join(config.categories) or 'any category'} in {source.root}")

    def decode(digests: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        return ((digest, read_rgb(file)) for digest, file in files.items() if digest in digests)

    points = PointSet(examples, decode)
    return points.sample(limit, seed) if limit else points


def _list_points(source: str, image: str, record: ImageRecord, item: AnnotatedObject) -> Iterator[PointExample]:
    like = [other for other in record.objects if other.name == item.name]
    ranks, _ = instance_order([other.bbox for other in like], record.width)
    rank = next(rank for other, rank in zip(like, ranks, strict=True) if other is item)
    place = object_location(item.bbox, record.width, record.height)
    for keypoint in item.keypoints:
        if keypoint.visible:
            yield PointExample(
                id=stable_id(source, record.image_id, item.bbox, keypoint.name),
                image=image,
                source=source,
                keypoint=(keypoint.x, keypoint.y),
                size=(record.width, record.height),
                object_bbox=item.bbox,
                part_bbox=None,
                facts=Facts(item.name, None, place, None, None, rank, len(like)),
                text="",
            )
