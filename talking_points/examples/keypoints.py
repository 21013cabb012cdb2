"""Objects with named keypoints, from any source of keypoint annotations: what a model of them learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talking_points.records import AnnotatedObject, Box, ImageRecord, stable_id
from talking_points.sources.images import decode_rgb
from talking_points.sources.keypoint_sets import KeypointSet
from talking_points.sources.protocol import Source


@dataclass(frozen=True)
class PoseExample:
    """One object with its keypoints. ``image`` is the key of its image, ``category`` its id in the source.

    size: width and height of the image; box: [x, y, width, height]; points: (K, 2) in pixels, in the order of the
    set's names; visible: which of them are labelled, bool (K,).
    """

    id: str
    image: str
    category: int
    category_name: str
    keypoints: KeypointSet
    size: tuple[int, int]
    box: Box
    points: NDArray[np.float64]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class PoseSet:
    """Objects and a way to their images: ``decode`` gives the wanted ones of the image keys, each once.

    skipped: objects left out while reading, by reason. missing: images that are not on disk, by category name. texts:
    descriptions of their own, by (set, keypoint).
    """

    examples: Sequence[PoseExample]
    decode: Callable[[Collection[str]], Iterator[tuple[str, Image.Image]]]
    skipped: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def subset(self, index: Iterable[int]) -> PoseSet:
        """Some of the objects, with the same images."""
        return replace(self, examples=[self.examples[position] for position in index])

    @property
    def categories(self) -> dict[int, str]:
        """Names of the categories that occur, by id."""
        return {example.category: example.category_name for example in self.examples}


def poses_of(
    records: Iterable[ImageRecord], set_for: Callable[[AnnotatedObject], KeypointSet], skipped: Counter[str]
) -> Iterator[PoseExample]:
    """Objects with at least one labelled keypoint, in the order of the records.

    ``set_for``: the keypoint set of an object: ``set_of(item.id)`` for MP-100, the source's own for other files. Its
    names are found among the object's, whatever their order there. Others are counted on ``skipped``.
    """
    for record in records:
        for number, item in enumerate(record.objects):
            keypoints = set_for(item)
            known = {point.name: point for point in item.keypoints}
            if set(known) != set(keypoints.names):
                skipped["keypoint_count"] += 1
                continue
            ordered = [known[name] for name in keypoints.names]
            visible = np.array([point.visible for point in ordered])
            if not visible.any():
                skipped["no_keypoints"] += 1
                continue
            yield PoseExample(
                stable_id(record.source, record.image_id, number),
                record.image_id,
                item.id,
                item.name,
                keypoints,
                (record.width, record.height),
                item.bbox,
                np.array([(point.x, point.y) for point in ordered]),
                visible,
            )


def load_poses(source: Source, set_for: Callable[[AnnotatedObject], KeypointSet]) -> PoseSet:
    """All objects of a source with labelled keypoints; see ``poses_of``. Images are decoded only when asked for."""
    skipped: Counter[str] = Counter()
    files: dict[str, Path] = {}

    def records() -> Iterator[ImageRecord]:
        for record in source:
            files[record.image_id] = record.image_path
            yield record

    examples = list(poses_of(records(), set_for, skipped))

    def decode(images: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        for image in sorted(images):
            yield image, Image.fromarray(decode_rgb(files[image]))

    return PoseSet(examples, decode, skipped + source.skipped)


def mirror_example(example: PoseExample) -> PoseExample:
    """The object in the mirrored image: places mirrored, and each given to the keypoint that it now is.

    A keypoint with a side whose other side has no name is not labelled there.
    """
    width = example.size[0]
    x, y, w, h = example.box
    order = list(example.keypoints.mirror())
    points = example.points[order] * [-1, 1] + [width - 1, 0]
    visible = example.visible[order]
    visible[list(example.keypoints.lopsided())] = False
    return replace(example, box=(width - 1 - x - w, y, w, h), points=points, visible=visible)
