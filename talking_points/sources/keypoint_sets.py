"""Sets of named keypoints: the 29 that MP-100's 100 categories share, and those that a user's own file defines.

A set is what a text query can ask for, so its names must be words, and different ones: ``check_names`` says why it
refuses others. Names are in annotation order; whose left and right they mean is ``side``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from talking_points.escaping import in_one_line
from talking_points.models.capellm.conversation import MARKER
from talking_points.sources.labels import load_labels

Side = Literal["own", "viewer", "none"]

_SIDES = {"left": "right", "right": "left"}
_SIDE = re.compile(r"\b(left|right)\b")
_SIDES_WRITTEN = (
    r"(?i:left|right)",
    r"(?i:(?<![A-Za-z])[lr](?![A-Za-z]))",
    r"(?<=[a-z0-9])[LR](?![A-Za-z])|(?<![A-Za-z])[LR](?=[A-Z][a-z])",
)
_WRITTEN_SIDES = tuple(re.compile(pattern) for pattern in ("|".join(_SIDES_WRITTEN), *_SIDES_WRITTEN))
"""All ways together come first: a mirror exchanges every side of "left eye, corner L"."""
_OTHER = {**_SIDES, "l": "r", "r": "l"}
_NUMBERED = re.compile(r"(key ?point|landmark|point|kp)?[ _-]?\d+", re.IGNORECASE)


LONGEST = 200
"""Characters of a name: it is asked for in a sentence, and stands in tables and figures."""

MOST = 1000
"""Keypoints of a set: every image carries their names."""


class KeypointSetError(ValueError):
    """Names that cannot be asked for: says which, why, and where to give others."""


@dataclass(frozen=True)
class KeypointSet:
    """Named keypoints in annotation order.

    side: whose left and right the names mean: the object's "own", the "viewer"'s, or "none" where names have no side;
        ``side_certain`` is False where public sources disagree.
    flip_pairs: indices that exchange their names when an image is mirrored.
    categories: ids of the categories that are annotated with this set.
    """

    key: str
    names: tuple[str, ...]
    side: Side
    flip_pairs: tuple[tuple[int, int], ...]
    categories: tuple[int, ...] = ()
    source: str = ""
    side_certain: bool = True

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The place of a name; raises ``KeypointSetError`` with the known names for another."""
        wanted = readable(name)
        if wanted not in self.names:
            raise KeypointSetError(f"{self.key} has no keypoint {name!r}: expected one of {', '.join(self.names)}")
        return self.names.index(wanted)

    def mirror(self) -> tuple[int, ...]:
        """For every index the index whose name it takes in a mirrored image: its partner, or itself."""
        order = list(range(len(self.names)))
        for one, other in self.flip_pairs:
            order[one], order[other] = other, one
        return tuple(order)

    def lopsided(self) -> tuple[int, ...]:
        """Indices of names with a side and no partner: what a mirrored image shows there has no name."""
        paired = {index for pair in self.flip_pairs for index in pair}
        return tuple(
            index for index, name in enumerate(self.names) if index not in paired and side_of(name) is not None
        )

    @classmethod
    def from_names(cls, key: str, names: Sequence[str], categories: Sequence[int] = ()) -> KeypointSet:
        """A checked set from names alone: pairs are names that differ in their side only, however it is written."""
        listed = tuple(readable(name) for name in names)
        check_names(listed, key)
        pairs = _flip_pairs(listed)
        side: Side = "own" if pairs or any(map(side_of, listed)) else "none"
        return cls(key, listed, side, pairs, tuple(categories))


def readable(name: str) -> str:
    """A name as it is put into a sentence: underscores are spaces, nothing in it is invisible; its case is kept."""
    return in_one_line(name.replace("_", " "))


def swap_sides(name: str) -> str:
    """The name with the words left and right exchanged: "inner left hem" -> "inner right hem"."""
    return _SIDE.sub(lambda found: _SIDES[found[0]], name)


def _flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Indices of names that differ in their sides only, each in one pair: first those that differ in all of them."""
    partner: dict[int, int] = {}
    places = {name: index for index, name in enumerate(names)}
    for pattern in _WRITTEN_SIDES:
        for index, name in enumerate(names):
            other = pattern.sub(_exchange, name)
            if other != name and other in places:
                found = places[other]
                if index not in partner and found not in partner:
                    partner |= {index: found, found: index}
    return tuple(sorted((one, other) for one, other in partner.items() if one < other))


def _exchange(found: re.Match[str]) -> str:
    word = found[0]
    other = _OTHER[word.lower()]
    return other.upper() if word.isupper() else other.title() if word[0].isupper() else other


def side_of(name: str) -> Literal["left", "right"] | None:
    """The side that a name is on; None for the middle, and for a name with both words."""
    words = set(_SIDE.findall(name.lower()))
    return words.pop() if len(words) == 1 else None


def check_names(names: Sequence[str], where: str) -> None:
    """Raise ``KeypointSetError`` unless every name can be asked for and told from the others.

    Refused: no names at all, more than ``MOST``, empty ones, too long ones, those that differ in case or alphabet of
    the same letters only, mere numbers and signs ("keypoint 7", "1.5"), and names with a line break, a role marker, an
    end marker or an image placeholder, which would change the conversation they are put into.
    """
    if not names:
        raise KeypointSetError(f"{where}: expected names of keypoints, found none. {_WHERE_TO_ADD}")
    if len(names) > MOST:
        raise KeypointSetError(f"{where}: expected at most {MOST:,} keypoints, found {len(names):,} names")
    for number, name in enumerate(names):
        if not name.strip():
            raise KeypointSetError(f"{where}: keypoint {number} has an empty name. {_WHERE_TO_ADD}")
        if len(name) > LONGEST:
            raise KeypointSetError(
                f"{where}: expected names of at most {LONGEST} characters, found one of {len(name):,} "
                f"({name[:40]!r} ...): shorten it; what says more of a keypoint is its description"
            )
        if _NUMBERED.fullmatch(name.strip()) or not any(map(str.isalpha, name)):
            raise KeypointSetError(
                f"{where}: {name!r} is a number or a sign, no name: a text cannot ask for it. {_WHERE_TO_ADD}"
            )
        if "\n" in name or "\r" in name or MARKER.search(name):
            raise KeypointSetError(
                f"{where}: {name!r} holds a line break, a role, an end marker or an image placeholder: rename it"
            )
    spelled = [unicodedata.normalize("NFKC", name).casefold() for name in names]
    times = Counter(spelled)
    repeated = sorted({name for name, same in zip(names, spelled, strict=True) if times[same] > 1})
    if repeated:
        raise KeypointSetError(
            f"{where}: names must differ, found twice: {', '.join(repeated)}. Say what tells them apart, "
            "for example the side or the nearest part"
        )


_WHERE_TO_ADD = 'Name every keypoint in the list "keypoints" of its category in the annotation file'


def check_set(keypoints: KeypointSet) -> None:
    """Raise ``KeypointSetError`` unless names can be asked for and flip pairs exchange exactly left and right."""
    check_names(keypoints.names, keypoints.key)
    used = [index for pair in keypoints.flip_pairs for index in pair]
    if len(set(used)) < len(used) or not set(used) <= set(range(len(keypoints))):
        raise KeypointSetError(f"{keypoints.key}: flip pairs must name different keypoints of the set, found {used}")
    for index, partner in enumerate(keypoints.mirror()):
        if swap_sides(keypoints.names[index]) != keypoints.names[partner]:
            raise KeypointSetError(
                f"{keypoints.key}: with left and right exchanged {keypoints.names[index]!r} must become "
                f"{swap_sides(keypoints.names[index])!r}, its flip pair says {keypoints.names[partner]!r}"
            )


@cache
def keypoint_sets() -> dict[str, KeypointSet]:
    """The 29 sets of MP-100 by key, checked."""
    sets = {}
    for item in load_labels("mp100_keypoints")["sets"]:
        one = KeypointSet(
            item["key"],
            tuple(item["names"]),
            item["side"],
            tuple((a, b) for a, b in item["flip_pairs"]),
            tuple(item["categories"]),
            item["source"],
            item["side_certain"],
        )
        check_set(one)
        sets[one.key] = one
    return sets


def set_of(category: int) -> KeypointSet:
    """The keypoint set of an MP-100 category id (1..100). Raises ``KeypointSetError`` for another id."""
    by_category = _by_category()
    if category not in by_category:
        raise KeypointSetError(
            f"expected a category of MP-100 (1 to 100), found {category!r}: categories of an annotation file of "
            "your own are read through the source coco_keypoints, which takes names from the file"
        )
    return by_category[category]


@cache
def _by_category() -> dict[int, KeypointSet]:
    return {category: one for one in keypoint_sets().values() for category in one.categories}
