"""The published label lists of every source, and the rules that make their names readable.

Ids are the ones stored in the data files. ``label`` is the source's own spelling ("dog's head", "Quadruped
Head", "Car Tier"); ``object`` and ``part`` are the words used in text: lower case, the object split off at the
first ``'s `` (or, in PartImageNet, the first space), run-together VOC names separated, "tier" spelled "tire".
Anything else stays the source's word: an "aeroplane" is not renamed to "airplane".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

_SPOKEN = {
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
    "diningtable": "dining table",
    "tier": "tire",
}


@cache
def load_labels(source: str) -> dict[str, Any]:
    """The label file of a source as published facts, parsed once. ``source``: a name of ``open_source``."""
    text = resources.files(__package__).joinpath("labels", f"{source}.json").read_text(encoding="utf-8")
    labels: dict[str, Any] = json.loads(text)
    return labels


def clean_name(name: str) -> str:
    """An object or part name as it is read in a sentence: "TVmonitor" -> "tv monitor", "Tier" -> "tire"."""
    name = " ".join(name.replace("_", " ").lower().split())
    return _SPOKEN.get(name, name)


def split_label(label: str) -> tuple[str, str]:
    """Object and part of a part label, cleaned.

    Splits at the first ``'s `` ("chest of drawers's apron") or else at the first space ("Car Side Mirror").
    Raises ``ValueError`` for a label with neither.
    """
    separator = "'s " if "'s " in label else " "
    owner, found, part = label.partition(separator)
    if not (found and owner and part):
        raise ValueError(f'expected "<object>\'s <part>" or "<Object> <Part>", found {label!r}')
    return clean_name(owner), clean_name(part)


@dataclass(frozen=True)
class ObjectLabel:
    """An object category: its id in the data files, the source's spelling and the readable name."""

    id: int
    label: str
    name: str


@dataclass(frozen=True)
class PartLabel:
    """A part category, with the id of the object category it belongs to."""

    id: int
    label: str
    object_id: int
    object: str
    part: str


@dataclass(frozen=True)
class Vocabulary:
    """The object and part categories of one part source. Both tuples are indexed by id (ids count from 0)."""

    objects: tuple[ObjectLabel, ...]
    parts: tuple[PartLabel, ...]

    @cached_property
    def part_ids(self) -> dict[int, tuple[int, ...]]:
        """Part ids of every object id; objects without parts have an empty tuple."""
        owned: dict[int, list[int]] = {label.id: [] for label in self.objects}
        for part in self.parts:
            owned[part.object_id].append(part.id)
        return {key: tuple(ids) for key, ids in owned.items()}


@cache
def vocabulary(source: str) -> Vocabulary:
    """Categories of ``pascal_part116``, ``ade20k_part234`` or ``partimagenet`` (objects: its supercategories)."""
    raw = load_labels(source)
    listed = raw["supercategories"] if source == "partimagenet" else raw["objects"]
    objects = tuple(ObjectLabel(item["id"], item["name"], clean_name(item["name"])) for item in listed)
    ids = {item.label: item.id for item in objects}
    parts = []
    for item in raw["parts"]:
        owner, part = split_label(item["name"])
        object_id = ids[item["supercategory"] if source == "partimagenet" else item["object"]]
        parts.append(PartLabel(item["id"], item["name"], object_id, owner, part))
    return Vocabulary(objects, tuple(parts))


@cache
def ap10k_families() -> dict[int, str]:
    """Family ("Bovidae", "Canidae", ...) of every AP-10K category id, that is of an AP-10K object's ``id``."""
    return {item["id"]: item["family"] for item in load_labels("ap10k")["species"]}
