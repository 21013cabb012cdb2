"""Taking a description apart into the paper's four levels (section 3.1), whoever wrote it.

A description goes from coarse to fine: the object in the image, the part on the object, the point in the part, the
look of the point. ``split_levels`` finds the object's and the part's name and cuts the text where one level ends and
the next begins; what it cannot find stays None, and the verifier says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from talking_points.candidates.directions import Directions, directions
from talking_points.candidates.spatial import plural

_IRREGULAR_PLURALS = {
    "foot": "feet",
    "hoof": "hooves",
    "leaf": "leaves",
    "man": "men",
    "woman": "women",
    "child": "children",
}

_PLACE_WORDS = frozenset(("top", "side", "back", "front", "face", "head", "bottom", "center", "middle"))
"""Part names that are also words for places: they count as a part only with an owner or article before them."""

_AFTER_A_PLACE = r"(?! (?:edges?|left|right|corners?|half|third|part|of the (?:image|picture|photo|frame|scene)))"
_OWNERS = (r"\bits", r"\btheir", "'s", "s'", r"\bthis", r"\bthese", "on the", "in the", "of the", "inside the")
_OWNER = "(?:" + "|".join(f"(?<={owner} )" for owner in _OWNERS) + ")"

_POINT = re.compile(r"\b(?:key ?)?point\b|\b(?:and|where) it (?:is|lies|sits)\b")
_LOOK = re.compile(
    r"\b(?:(?:in|on|at|over|within) (?:a|an) (?!(?:center|middle|upper|lower|left|right|top|bottom))"
    r"|(?:in|on|at|with) the (?:region|area|spot|surface|surroundings)\b"
    r"|(?:and )?(?:the )?(?:region|area|surroundings) (?:around|near)"
    r"|where\b|with (?:a|an|the|no|its|some)\b|features\b|featuring\b|show(?:s|ing)\b|display(?:s|ing)\b"
    r"|characteri[sz]ed\b|marked by\b|surrounded by\b|around the (?:key)?point\b|there (?:is|are)\b"
    r"|which (?:shows|has|features)\b|consist(?:s|ing) of\b|contain(?:s|ing)\b|reveal(?:s|ing)\b"
    r"|right (?:around|at) (?:it|the point)\b)"
)
_CLAUSE_START = re.compile(
    r"[,;.:]|\band (?=within\b|in\b|inside\b|on\b|it\b|the (?:key)?point\b)|\bwhere\b|\bwith the\b"
)


@dataclass(frozen=True)
class Levels:
    """The texts of the four levels, lower case; None where a level was not found.

    ``named_in_order`` is False when the part is named before the object.
    """

    object_place: str | None
    part_place: str | None
    point_place: str | None
    look: str | None
    object_named: bool
    part_named: bool
    named_in_order: bool


@lru_cache(maxsize=4096)
def _mention(names: frozenset[str]) -> re.Pattern[str]:
    """Matches any of the names, singular or plural."""
    forms: list[str] = []
    for name in sorted(names, key=len, reverse=True):
        spellings = {name, plural(name), _IRREGULAR_PLURALS.get(name, name)}
        spelled = "|".join(sorted(map(re.escape, spellings), key=len, reverse=True))
        forms.append(f"{_OWNER}(?:{spelled})\\b{_AFTER_A_PLACE}" if name in _PLACE_WORDS else f"(?:{spelled})\\b")
    return re.compile(r"\b(?:" + "|".join(forms) + ")")


@lru_cache(maxsize=4096)
def claims_of(text: str, names: tuple[str, ...]) -> Directions:
    """``directions`` of a text, remembered: cutting a description asks about the same pieces again and again."""
    return directions(text, names)


def _has_place(text: str, names: tuple[str, ...]) -> bool:
    claims = claims_of(text, names)
    return bool(claims.horizontal or claims.vertical)


def split_levels(description: str, object_names: Collection[str], part_names: Collection[str]) -> Levels:
    """Cut a description into its levels.

    Args:
        description: the text, any case.
        object_names, part_names: what the object and the part may be called, lower case, singular.
    """
    text = " ".join(description.lower().split())
    object_pattern, part_pattern = _mention(frozenset(object_names)), _mention(frozenset(part_names))
    # A word for both ("light" for a lamp's light source) speaks of the part only where no clearer word does.
    clearer = frozenset(part_names) - frozenset(object_names)
    if clearer and _mention(clearer).search(text):
        part_pattern = _mention(clearer)
    first_object, first_part = object_pattern.search(text), part_pattern.search(text)
    if first_object is None:
        return Levels(None, None, None, None, False, first_part is not None, True)
    if first_part is not None and first_part.end() <= first_object.start():
        return Levels(None, None, None, None, True, True, False)
    part = _part_after(text, first_object.end(), object_pattern, part_pattern)
    if part is None:
        return Levels(None, None, None, None, True, False, True)
    names = tuple(sorted({*object_names, *part_names}))
    start, rest = text[: part.start()], text[part.end() :]
    part_place, point_and_look = _split_at_point(rest, object_pattern, part_pattern, names)
    point_place, look = _split_at_look(point_and_look, names)
    return Levels(
        object_place=start if _has_place(start, names) else None,
        part_place=part_place if _has_place(part_place, names) else None,
        point_place=point_place if _has_place(point_place, names) else None,
        look=look or None,
        object_named=True,
        part_named=True,
        named_in_order=True,
    )


def _part_after(
    text: str, position: int, object_pattern: re.Pattern[str], part_pattern: re.Pattern[str]
) -> re.Match[str] | None:
    """The first mention of the part after the object's; one that could be either must have an owner before it."""
    for match in _own_mentions(text, part_pattern, object_pattern, position):
        owned = re.search(r"(?:\b(?:its|their|his|her)|'s|s') (?:[\w-]+ )?$", text[: match.start()])
        if owned or not object_pattern.fullmatch(match[0]):
            return match
    return None


def _own_mentions(
    text: str, part_pattern: re.Pattern[str], object_pattern: re.Pattern[str], position: int = 0
) -> Iterator[re.Match[str]]:
    """Mentions of the part that are not a piece of the object's name, as "drawers" is in "chest of drawers"."""
    longer = list(object_pattern.finditer(text))
    for mention in part_pattern.finditer(text, position):
        if not any(
            name.start() < mention.end() and mention.start() < name.end() and len(name[0]) > len(mention[0])
            for name in longer
        ):
            yield mention


def _split_at_point(
    rest: str, object_pattern: re.Pattern[str], part_pattern: re.Pattern[str], names: tuple[str, ...]
) -> tuple[str, str]:
    """What follows the part's name, cut into the part's place and everything from the point's place on."""
    mentions = _own_mentions(rest, part_pattern, object_pattern)
    anchors = sorted([*mentions, *_POINT.finditer(rest)], key=lambda match: match.start())
    for anchor in anchors:
        starts = [match.start() for match in _CLAUSE_START.finditer(rest, 0, anchor.end())]
        for start in reversed(starts):
            if _has_place(rest[:start], names):
                return rest[:start], rest[start:]
        frame = _frame_before(rest, anchor.start(), object_pattern)
        if frame is not None:
            return rest[:frame], rest[frame:]
        framed = rest[: anchor.start()].endswith(("of the ", "of this ", "of its ", "of their "))
        if framed and not object_pattern.fullmatch(anchor[0]):
            # "near the edge of the paw": the only place so far is the point's.
            return "", rest
    frame = _frame_before(rest, len(rest), object_pattern)
    if frame is not None:
        return rest[:frame], rest[frame:]
    # Nothing but one place: it is the point's where the point or the part is named again, else the part's.
    return ("", rest) if anchors else (rest, "")


def _frame_before(rest: str, end: int, object_pattern: re.Pattern[str]) -> int | None:
    """Where "of the dog" ends: there the part's place is complete."""
    match = object_pattern.search(rest, 0, end)
    return match.end() if match else None


def _split_at_look(text: str, names: tuple[str, ...]) -> tuple[str, str]:
    """The point's place and the look: the look starts at its first marker behind the first word for a place."""
    for marker in _LOOK.finditer(text):
        if _has_place(text[: marker.start()], names):
            return text[: marker.start()], text[marker.start() :]
    for comma in re.finditer(r"[,;.]", text):
        before, after = text[: comma.start()], text[comma.start() :]
        if _has_place(before, names) and not _has_place(after, names):
            return before, after
    return text, ""
