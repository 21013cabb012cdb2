"""What people would call the things in a drawn scene, for a sample in the layout of refCOCO, refCOCO+ and refCOCOg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from talking_points.records import Box, derive_seed

CATEGORIES: dict[str, str] = {
    "songbird": "bird",
    "robin": "bird",
    "blue tit": "bird",
    "goose": "bird",
    "screen": "tv",
    "aeroplane": "airplane",
    "table": "dining table",
    "sofa": "couch",
    "armchair": "chair",
    "pottedplant": "potted plant",
}
"""COCO's names of drawn things that are called otherwise."""

FILES = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
"""Folder of each set -> its refs file."""

_APART = 0.04
"""Of the width: centres nearer than that are not told apart by left and right."""

_LARGER = 1.5
"""Times the area: things more alike than that are not told apart by size."""

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Referred:
    """A thing that can be referred to: COCO's name of it, its box ``[x, y, width, height]`` and area in pixels."""

    annotation_id: int
    category_id: int
    name: str
    box: Box
    area: float


def references(image_id: int, index: int, width: int, things: Sequence[Referred]) -> dict[str, list[dict[str, Any]]]:
    """The entries of each set's refs file for one image, ``width`` in pixels: folder -> entries.

    A thing that the words of a set do not tell from its like has no entry there.
    """
    person = any(thing.name == "person" for thing in things)
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in FILES:
        split = _split(folder, index, person)
        entries = []
        for thing in things:
            like = sorted((other for other in things if other.name == thing.name), key=_centre)
            sentences = _SENTENCES[folder](thing, like, width)
            if sentences:
                entries.append(_entry(image_id, thing, split, sentences))
        found[folder] = entries
    return found


def _split(folder: str, index: int, person: bool) -> str:
    """Both sets of the unc division share their images; those of the umd division are divided otherwise."""
    if folder == "refcocog":
        share = derive_seed(0, "drawn umd split", index) % 100
        return "train" if share < 75 else "val" if share < 85 else "test"
    share = derive_seed(0, "drawn unc split", index) % 100
    if share < 80:
        return "train" if share < 70 else "val"
    return "testA" if person else "testB"


def _entry(image_id: int, thing: Referred, split: str, sentences: Sequence[str]) -> dict[str, Any]:
    ids = [10 * thing.annotation_id + position for position in range(len(sentences))]
    return {
        "sent_ids": ids,
        "file_name": f"COCO_train2014_{image_id:012d}_{thing.annotation_id}.jpg",
        "ann_id": thing.annotation_id,
        "ref_id": thing.annotation_id,
        "image_id": image_id,
        "split": split,
        "sentences": [
            {"tokens": text.split(), "raw": text[0].upper() + text[1:], "sent_id": id, "sent": text}
            for id, text in zip(ids, sentences, strict=True)
        ],
        "category_id": thing.category_id,
    }


def _centre(thing: Referred) -> float:
    return thing.box[0] + thing.box[2] / 2


def _order(thing: Referred, like: Sequence[Referred], width: int) -> str | None:
    """ "left", "middle", "right" or "second from the left" among its like; None where it is too near to one."""
    place = like.index(thing)
    beside = [*like[max(place - 1, 0) : place], *like[place + 1 : place + 2]]
    if any(abs(_centre(thing) - _centre(other)) < _APART * width for other in beside):
        return None
    if place in (0, len(like) - 1):
        return "left" if place == 0 else "right"
    return "middle" if len(like) == 3 else f"{_ORDINALS[min(place, 5)]} from the left"


def _by_place(thing: Referred, like: Sequence[Referred], width: int) -> list[str]:
    if len(like) == 1:
        return [thing.name, f"the {thing.name}"]
    order = _order(thing, like, width)
    if order is None:
        return []
    if order.endswith("from the left"):
        return [f"{thing.name} {order}"]
    other = f"the {thing.name} in the middle" if order == "middle" else f"{thing.name} on the {order}"
    return [f"{order} {thing.name}", other]


def _by_look(thing: Referred, like: Sequence[Referred], width: int) -> list[str]:
    """Without words about places."""
    if len(like) == 1:
        return [thing.name, f"the {thing.name}"]
    others = [other.area for other in like if other is not thing]
    if thing.area > _LARGER * max(others):
        return [f"biggest {thing.name}", f"the largest {thing.name}"]
    if _LARGER * thing.area < min(others):
        return [f"smallest {thing.name}", f"the tiniest {thing.name}"]
    return []


def _by_sentence(thing: Referred, like: Sequence[Referred], width: int) -> list[str]:
    article = "an" if thing.name[0] in "aeiou" else "a"
    if len(like) == 1:
        return [f"{article} {thing.name} with no other beside it", f"the only {thing.name} that is to be seen"]
    order = _order(thing, like, width)
    if order is None:
        return []
    where = order if order.endswith("from the left") else f"in the middle of {len(like)}"
    where = f"farthest to the {order}" if order in ("left", "right") else where
    return [f"the {thing.name} that is {where}", f"{article} {thing.name} which stands {where}"]


_SENTENCES = {"refcoco": _by_place, "refcoco+": _by_look, "refcocog": _by_sentence}
