"""What a dataset is made of, and how much of the label lists it reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from talking_points.records import SOURCES
from talking_points.sources.labels import vocabulary


@dataclass(frozen=True)
class Composition:
    """What a dataset is made of: points by source, object and part, and how much of the label lists they reach.

    Objects and (object, part) pairs are counted over all sources under one normalization: lower case, exact string, no
    merging of synonyms ("aeroplane" and "airplane" are two).
    """

    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    objects_available: int
    objects_sampled: int
    pairs_available: int
    pairs_sampled: int

    @property
    def points(self) -> int:
        return sum(sum(parts.values()) for objects in self.counts.values() for parts in objects.values())


def composition(
    sources: Sequence[str], objects: Sequence[str], parts: Sequence[str], *, configured: Collection[str] = ()
) -> Composition:
    """Count rows given by three equally long columns. ``configured``: sources of the build, for what was available."""
    return compose(Counter(zip(sources, objects, parts, strict=True)), configured=configured)


def compose(counted: Mapping[tuple[str, str, str], int], *, configured: Collection[str] = ()) -> Composition:
    """The same of rows that are counted by (source, object, part)."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (source, name, part), count in sorted(counted.items()):
        counts.setdefault(source, {}).setdefault(name, {})[part] = count
    objects_available, pairs_available = label_availability(configured or counts)
    own = {(name.lower(), part.lower()) for source, name, part in counted if source not in SOURCES}
    objects_available, pairs_available = objects_available | {name for name, _ in own}, pairs_available | own
    pairs = {(name.lower(), part.lower()) for _, name, part in counted}
    return Composition(
        counts=counts,
        objects_available=len(objects_available),
        objects_sampled=len({name for name, _ in pairs}),
        pairs_available=len(pairs_available),
        pairs_sampled=len(pairs),
    )


def label_availability(sources: Collection[str]) -> tuple[set[str], set[tuple[str, str]]]:
    """The objects and the (object, part) pairs that the label lists of ``sources`` offer, normalized.

    All three sources together give 64 objects, as the paper counts them, and 363 pairs. An object without parts
    ("dining table") counts as available, though no point can lie in a part of it. Other sources have no lists.
    """
    objects: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for source in SOURCES:
        if source not in sources:
            continue
        listed = vocabulary(source)
        objects |= {label.name.lower() for label in listed.objects}
        pairs |= {(label.object.lower(), label.part.lower()) for label in listed.parts}
    return objects, pairs
