"""Which images are trained on: whole images, near-duplicates together, and none that somebody evaluates on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from talking_points.candidates.splitting import near_duplicate_groups, split
from talking_points.instructions.config import SplitSettings
from talking_points.sources.refcoco import SETS

Side = Literal["train", "test", "left_out"]


@dataclass(frozen=True)
class ImageIdentity:
    """One image of one source. ``split`` is the source's own; ``aspect`` is width / height; ``phash`` has 64 bits."""

    source: str
    image_id: str
    split: str
    sha256: str
    phash: int
    aspect: float

    @property
    def key(self) -> str:
        return f"{self.source}\x1f{self.image_id}"

    @property
    def divided(self) -> bool:
        """Whether its source says who trains on it."""
        return is_divided(self.source)


def is_divided(source: str) -> bool:
    """Whether a source comes with a published division into training and evaluation that counts."""
    return source in SETS


def assign_sides(images: Sequence[ImageIdentity], settings: SplitSettings, seed: int) -> dict[str, Side]:
    """The side of each image by its ``key``. No group of near-duplicates has images on both sides.

    Images of refCOCO, refCOCO+ and refCOCOg stay where they were published: "train" there is trained on, every other
    split is tested on. A training image of theirs that is, or looks like, one of an evaluation split is left out,
    unless ``settings`` say otherwise. Images of other sources go where the published ones of their group are, to the
    test side first, and else are divided by ``train_parts`` and ``test_parts`` of each source.
    """
    groups = near_duplicate_groups(
        np.array([image.phash for image in images], np.uint64),
        settings.near_duplicate_bits,
        aspects=np.array([image.aspect for image in images], np.float64),
        contents=[image.sha256 for image in images],
    ).tolist()
    evaluated = {group for group, image in zip(groups, images, strict=True) if image.divided and image.split != "train"}
    trained = {group for group, image in zip(groups, images, strict=True) if image.divided} - evaluated
    sides: dict[str, Side] = {}
    free: list[tuple[ImageIdentity, int]] = []
    for image, group in zip(images, groups, strict=True):
        if image.divided and image.split == "train":
            kept = group not in evaluated or not settings.exclude_evaluation_images
            sides[image.key] = "train" if kept else "left_out"
        elif image.divided or group in evaluated:
            sides[image.key] = "test"
        elif group in trained:
            sides[image.key] = "train"
        else:
            free.append((image, group))
    divided = split(
        [image.key for image, _ in free],
        [image.source for image, _ in free],
        [group for _, group in free],
        train_parts=settings.train_parts,
        test_parts=settings.test_parts,
        seed=seed,
    )
    for (image, _), side in zip(free, divided, strict=True):
        sides[image.key] = "test" if side == "test" else "train"
    return sides
