"""The words that name a region: what people wrote, or a phrase from the annotations that means it alone."""

from __future__ import annotations

from collections.abc import Sequence

from talking_points.candidates.build import Instance
from talking_points.candidates.directions import ORDINALS
from talking_points.candidates.spatial import instance_order, instance_phrase
from talking_points.descriptions.answer_text import visible
from talking_points.descriptions.nouns import possessive, say_object, say_part
from talking_points.records import AnnotatedObject, Box

MAX_CHARACTERS = 1200
"""Longest expression that is asked with."""


def clean_expressions(texts: Sequence[str]) -> list[str]:
    """Written expressions on one line each, without invisible characters; what has no letter or digit is left out."""
    cleaned = (" ".join(visible(text).split()) for text in texts)
    return [text for text in cleaned if any(map(str.isalnum, text)) and len(text) <= MAX_CHARACTERS]


def name_object(annotated: AnnotatedObject, instance: Instance) -> str | None:
    """ "the dog", "the second dog from the left"; None where its order among its like is not plain to see."""
    name = say_object(annotated.name)
    if instance.count == 1:
        return f"the {name}"
    if not instance.ordered or min(instance.index, instance.count - 1 - instance.index) >= len(ORDINALS):
        return None
    return instance_phrase(instance.index, instance.count, name)


def name_part(annotated: AnnotatedObject, position: int, instance: Instance, width: int) -> str | None:
    """ "the dog's head", "the dog's foot on the left", "the head of the second dog from the left".

    ``width``: of the image, pixels. None where these words would fit another part as well.
    """
    part = annotated.parts[position]
    like = [number for number, other in enumerate(annotated.parts) if other.name == part.name]
    owner, spoken = name_object(annotated, instance), say_part(annotated.name, part.name)
    if owner is None or (len(like) > 1 and instance.count > 1):
        return None
    if instance.count > 1:
        return f"the {spoken} of {owner}"
    whose = possessive(say_object(annotated.name))
    if len(like) == 1:
        return f"{whose} {spoken}"
    place = _place([annotated.parts[number].bbox for number in like], like.index(position), width)
    return place and f"{whose} {place.format(spoken)}"


def _place(boxes: Sequence[Box], position: int, width: int) -> str | None:
    """Which of several parts, from the left, with the place of its name in braces."""
    ranks, plain = instance_order(boxes, width)
    rank, last = ranks[position], len(boxes) - 1
    if not plain:
        return None
    if rank in (0, last):
        far = "far " if last > 1 else ""
        return "{} on the " + far + ("left" if rank == 0 else "right")
    if 2 * rank == last:
        return "{} in the middle"
    side, steps = ("left", rank) if 2 * rank < last else ("right", last - rank)
    return f"{ORDINALS[steps]} {{}} from the {side}" if steps < len(ORDINALS) else None
