"""Conversations about crops of objects: which keypoints are asked for together, in what crop, and with what answers.

An object's keypoints are shuffled and cut into groups; each group is one conversation of a round per keypoint about
one augmented crop. Everything drawn depends on (seed, epoch, object, group) alone, so that order, sharding, workers
and a kill and resume change no byte.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.examples.keypoints import PoseExample, mirror_example
from talking_points.models.capellm.conversation import IGNORED_LABEL, Encoded, Query, Round, Template, encode, group
from talking_points.models.capellm.coordinates import format_point
from talking_points.models.capellm.crops import Crop
from talking_points.records import derive_seed


@dataclass(frozen=True)
class ConversationSettings:
    """How conversations are drawn; the defaults are the official ones but for the padding.

    k: rounds of a conversation; size: side of the crop in pixels; scale: deviation of its random size, which stays
    within as much of 1; rotation: most degrees of a random turn, which happens with ``rotation_share``; flip: whether
    half the images are mirrored, with the names of both sides exchanged.
    """

    k: int = 4
    size: int = 224
    padding: float = 1.25
    scale: float = 0.3
    rotation: float = 40.0
    rotation_share: float = 0.5
    flip: bool = False
    decimals: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"expected at least one round per conversation, found k = {self.k}")


@dataclass(frozen=True)
class Conversation:
    """Rounds about one crop. ``keypoints``: indices of what is asked; ``places``: (n, 2), fractions of the crop."""

    example: PoseExample
    crop: Crop
    mirrored: bool
    keypoints: tuple[int, ...]
    rounds: tuple[Round, ...]
    places: NDArray[np.float64]

    def pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The crop of the example's image (height, width, 3): uint8 (size, size, 3)."""
        return self.crop.warp(np.ascontiguousarray(image[:, ::-1]) if self.mirrored else image)


def groups_of(example: PoseExample, settings: ConversationSettings, epoch: int) -> list[list[int]]:
    """The keypoints of an object, cut into groups of k for one epoch; every keypoint occurs."""
    generator = random.Random(derive_seed(settings.seed, epoch, example.id, "groups"))
    count = len(example.keypoints)
    return group(generator.sample(range(count), count), settings.k, generator)


def draw_crop(example: PoseExample, settings: ConversationSettings, epoch: int, number: int) -> tuple[Crop, bool]:
    """The augmented crop of conversation ``number`` of an object, and whether it is of the mirrored image.

    A number of -1 is for all groups together, where they share one reading of the image.
    """
    generator = np.random.default_rng(derive_seed(settings.seed, epoch, example.id, number, "crop"))
    scale = float(np.clip(1 + settings.scale * generator.normal(), 1 - settings.scale, 1 + settings.scale))
    turned = generator.random() < settings.rotation_share
    rotation = float(generator.uniform(-settings.rotation, settings.rotation)) if turned else 0.0
    flip = settings.flip and bool(generator.random() < 0.5)
    box = (mirror_example(example) if flip else example).box
    return Crop.of_box(box, settings.size, settings.padding, scale, rotation), flip


def converse(
    example: PoseExample,
    chosen: Sequence[int],
    crop: Crop,
    flip: bool,
    texts: Mapping[tuple[str, str], str],
    decimals: int = 3,
) -> Conversation | None:
    """A round for each of the ``chosen`` keypoints that is labelled and in the crop; None when there is none.

    ``texts``: descriptions by (set, keypoint); a keypoint without one is asked for by its name alone.
    """
    seen = mirror_example(example) if flip else example
    inside = crop.contains(seen.points) & seen.visible
    asked = tuple(index for index in chosen if inside[index])
    if not asked:
        return None
    places = np.clip(crop.forward(seen.points[list(asked)]) / crop.size, 0, np.nextafter(1, 0))
    names = [example.keypoints.names[index] for index in asked]
    rounds = tuple(
        Round(
            Query(name, texts.get((example.keypoints.key, name)), example.keypoints.names), format_point(x, y, decimals)
        )
        for name, (x, y) in zip(names, places.tolist(), strict=True)
    )
    return Conversation(example, crop, flip, asked, rounds, places)


def encode_conversation(
    conversation: Conversation, template: Template, tokenizer: Any, image_tokens: int, max_length: int
) -> Encoded:
    """A conversation's text in tokens, its answers to be learnt. Raises ValueError for one that is too long."""
    found = encode(tokenizer, *template.render(conversation.rounds))
    length = 1 + image_tokens + len(found.ids)
    if length > max_length:
        raise ValueError(
            f"expected conversations of at most {max_length} tokens, found {length} with the image's {image_tokens} "
            f"about {conversation.example.category_name}: take fewer rounds or shorter descriptions; answers are "
            "never cut off"
        )
    return found


@dataclass(frozen=True)
class Batch:
    """Conversations as arrays: ids and labels (N, L) int64, positions (N, L), and the real tokens, visible (N, L)."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    visible: NDArray[np.bool_]


def batch(conversations: Sequence[Encoded], head: Sequence[int], padding: int) -> Batch:
    """One conversation a row behind ``head``, the begin token and the image's placeholders; padded on the right."""
    length = len(head) + max(len(one.ids) for one in conversations)
    shape = (len(conversations), length)
    ids, labels = np.full(shape, padding, np.int64), np.full(shape, IGNORED_LABEL, np.int64)
    visible = np.zeros(shape, bool)
    for row, one in enumerate(conversations):
        end = len(head) + len(one.ids)
        ids[row, :end] = [*head, *one.ids]
        labels[row, len(head) : end] = one.labels
        visible[row, :end] = True
    return Batch(ids, labels, np.broadcast_to(np.arange(length), shape).copy(), visible)
