"""The four ways to name a region, and the kinds of questions that lead from one to another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from talking_points.records import derive_seed

Element = Literal["text", "point", "box", "mask"]

Kind = Literal[
    "text_to_mask",
    "point_to_mask",
    "box_to_mask",
    "text_to_box",
    "text_to_point",
    "point_to_box",
    "box_to_text",
    "point_to_text",
    "mask_to_text",
    "mask_to_box",
]


class Ways(NamedTuple):
    """What a question gives, and what its answer is."""

    asked: Element
    answered: Element


KINDS: dict[Kind, Ways] = {
    "text_to_mask": Ways("text", "mask"),
    "point_to_mask": Ways("point", "mask"),
    "box_to_mask": Ways("box", "mask"),
    "text_to_box": Ways("text", "box"),
    "text_to_point": Ways("text", "point"),
    "point_to_box": Ways("point", "box"),
    "box_to_text": Ways("box", "text"),
    "point_to_text": Ways("point", "text"),
    "mask_to_text": Ways("mask", "text"),
    "mask_to_box": Ways("mask", "box"),
}
"""All kinds, in the order in which they are drawn."""

PLACEHOLDERS: dict[Element, str] = {"text": "expression", "point": "point", "box": "box", "mask": "mask"}
"""What stands for an element in a phrasing, in braces."""


def list_usable(kinds: Iterable[Kind], missing: Iterable[Element]) -> list[Kind]:
    """The kinds that need none of the elements that a region lacks."""
    lacking = set(missing)
    return [kind for kind in kinds if not lacking.intersection(KINDS[kind])]


def draw_kinds(weights: Mapping[Kind, float], count: int, seed: int, row: str) -> list[Kind]:
    """``count`` different kinds, or all there are, each drawn with a chance that grows with its weight.

    Depends on ``seed``, ``row`` and the weights alone, not on their order. Efraimidis and Spirakis 2006.
    """
    keys = {
        kind: math.log((derive_seed(seed, row, "kind", kind) + 0.5) / 2**32) / weight
        for kind, weight in weights.items()
        if weight > 0
    }
    return sorted(keys, key=lambda kind: (-keys[kind], kind))[:count]
