"""What the keypoints of MP-100 are and how they stand to one another, as facts: for writing texts and checking them.

Facts are written once for both sides, with ``{side}`` and ``{other}`` in them, and once for all sets of a family; a
set takes those about its own keypoints. Relations hold on the object in its usual position, seen in no special way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from talking_points.sources.keypoint_sets import KeypointSet, swap_sides

RELATIONS = ("above", "below", "in_front_of", "behind", "connected")
OPPOSITES = {"above": "below", "below": "above", "in_front_of": "behind", "behind": "in_front_of"}


@dataclass(frozen=True)
class Neighbours:
    """A keypoint on a curve: the ones before and behind it (one of both at an end), its rank and how many there are."""

    curve: str
    before: str | None
    behind: str | None
    rank: int
    count: int
    first: str


@dataclass(frozen=True)
class Fact:
    """What a keypoint is (``what``), on which part (``on``), and its relations by kind to names of the same set."""

    what: str
    on: str
    relations: Mapping[str, tuple[str, ...]]
    curves: tuple[Neighbours, ...]


@cache
def _families() -> dict[str, dict[str, Any]]:
    file = resources.files(__package__).joinpath("facts", "mp100.json")
    families: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["families"]
    return {key: family for family in families.values() for key in family["sets"]}


def has_facts(keypoints: KeypointSet) -> bool:
    """Whether facts are known about this set: those of MP-100 are."""
    return keypoints.key in _families()


def is_seen_from_front(keypoints: KeypointSet) -> bool:
    """Whether the object is always seen from the front, so that the viewer's sides are the own ones exchanged."""
    return bool(_families()[keypoints.key]["front"])


@cache
def facts_of(keypoints: KeypointSet) -> dict[str, Fact]:
    """The facts of every keypoint by name. Raises KeyError for a set without any, ValueError for a missing keypoint."""
    family = _families()[keypoints.key]
    known = set(keypoints.names)
    points: dict[str, Mapping[str, Any]] = {}
    for template, raw in family["points"].items():
        for side, other in _sides(template):
            name = _fill(template, side, other)
            if name in known:
                points[name] = {key: _fill_all(value, side, other) for key, value in raw.items()}
    missing = known - points.keys()
    if missing:
        raise ValueError(f"facts/mp100.json says nothing about {', '.join(sorted(missing))} of {keypoints.key}")
    curves = _curves(keypoints, family["chains"])
    return {
        name: Fact(
            raw["what"],
            raw["on"],
            {kind: found for kind in RELATIONS if (found := tuple(n for n in raw.get(kind, ()) if n in known))},
            tuple(curves.get(name, ())),
        )
        for name, raw in points.items()
    }


def _sides(template: str) -> tuple[tuple[str, str], ...]:
    sided = "{side}" in template or "{other}" in template
    return (("right", "left"), ("left", "right")) if sided else (("", ""),)


def _fill(template: str, side: str, other: str) -> str:
    return template.replace("{side}", side).replace("{other}", other)


def _fill_all(value: str | Iterable[str], side: str, other: str) -> Any:
    if isinstance(value, str):
        return _fill(value, side, other)
    return [_fill(part, side, other) for part in value]


def _curves(keypoints: KeypointSet, chains: Iterable[Mapping[str, Any]]) -> dict[str, list[Neighbours]]:
    """Neighbours of every keypoint on the curves of its set; a place where both sides meet has one on each."""
    found: dict[str, list[Neighbours]] = {}
    for chain in chains:
        templates = chain["points"]
        expanded = []
        for side, other in _sides(" ".join(templates)):
            names = [_fill(template, side, other) for template in templates]
            expanded.append((_fill(chain["curve"], side, other), [name for name in names if name in keypoints.names]))
        right, left = expanded[0][1], expanded[-1][1]
        both = len(expanded) == 2
        ends = both and right[-1:] == left[-1:], both and right[:1] == left[:1]
        for place, (curve, names) in enumerate(expanded):
            for rank, name in enumerate(names if len(names) > 1 else []):
                before = names[rank - 1] if rank else None
                behind = names[rank + 1] if rank + 1 < len(names) else None
                if (behind is None and ends[0]) or (before is None and ends[1]):
                    if place:
                        continue  # said once, with the neighbour of the other side
                    before, behind = (before, swap_sides(names[-2])) if rank else (behind, swap_sides(names[1]))
                found.setdefault(name, []).append(Neighbours(curve, before, behind, rank + 1, len(names), names[0]))
    return found
