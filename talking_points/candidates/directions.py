"""Claims about places, read out of any text: the inverse of ``spatial``.

Language models reword what the annotations say ("upper-left", "towards the bottom", "just below the midline", "on the
lower right-hand side"). ``directions`` reduces such wording to sets of sides, ``contradicts`` compares two of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

# fmt: off
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
    "twentieth",
)
NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on


@dataclass(frozen=True)
class Directions:
    """What a text claims about a place. Left and right are the viewer's.

    ``horizontal`` holds any of left, right, center, spans; ``vertical`` any of top, bottom, center, spans; ``slight``
    those sides that are claimed only slightly ("slightly above the center": vertical top, slight top).
    ``ordinals`` holds claims about the order of instances: ("left", 2) for "second from the left", ("right", 1) for
    "rightmost", ("middle", 0).
    """

    horizontal: frozenset[str] = frozenset()
    vertical: frozenset[str] = frozenset()
    slight: frozenset[str] = frozenset()
    ordinals: frozenset[tuple[str, int]] = frozenset()


def directions(phrase: str, names: Collection[str] = ()) -> Directions:
    """The claims about places in any text, however worded.

    Instance order ("rightmost", "second from the left") counts as an ordinal, never as a side. Relations to other
    things than a center ("above the nose", "on top of the table", "to the left of a stripe") are no claims. A center
    without an axis ("in the center", "slightly above the center") speaks for every axis about which nothing else is
    said. ``names``: names of objects and parts in the text, so that a part called "top" or "upper arm" is not a claim.
    """
    text, ordinals = _take_ordinals(_normalize(phrase, names))
    text, claims = _take_spans(text)
    words = re.findall(r"[a-z']+|[,;.:]", text)
    plain: set[str] = set()
    slight: set[str] = set()
    centered = slightly = relation = False
    for position, word in enumerate(words):
        if word in _SLIGHTLY:
            slightly = True
        elif word in _CENTERS:
            if _is_center(words, position):
                axes = _axes_of_center(words, position)
                centered = centered or not axes
                claims |= {(axis, "center") for axis in axes if not (relation and word in _ANCHORS)}
            slightly = relation = False
        elif word in _SIDES or word in _RELATIONS:
            to_center = _relates_to_center(words, position)
            if to_center or (word in _SIDES and _is_side(words, position)):
                claim = _SIDES.get(word) or _RELATIONS[word]
                claims.add(claim)
                (slight if slightly else plain).add(claim[1])
                relation = relation or to_center
        elif word not in _LINKING and word not in _AXES:
            slightly = relation = False
    sides = {axis: {side for found, side in claims if found == axis} for axis in ("horizontal", "vertical")}
    return Directions(
        horizontal=frozenset(sides["horizontal"] or ({"center"} if centered else ())),
        vertical=frozenset(sides["vertical"] or ({"center"} if centered else ())),
        slight=frozenset(slight - plain),
        ordinals=frozenset(ordinals),
    )


def contradicts(claims: Directions, truth: Directions) -> bool:
    """Whether a text's claims about a place disagree with the truth: ``directions`` of the annotation's own phrase.

    An axis about which either says nothing cannot disagree. A truth of "slightly left" agrees with left and with
    center, and what truly spans an axis may be called centered. The order of instances is checked by
    ``contradicts_order``.
    """
    for claimed, true in ((claims.horizontal, truth.horizontal), (claims.vertical, truth.vertical)):
        allowed = true | {"center"} if "spans" in true or true & truth.slight else true
        if true and not claimed <= allowed:
            return True
    return False


def contradicts_order(claims: Directions, index: int, count: int) -> bool:
    """Whether a claimed order disagrees with rank ``index`` (0 = leftmost) among ``count`` objects of the name."""
    claimed = {"left": lambda rank: rank - 1, "right": lambda rank: count - rank, "middle": lambda _: (count - 1) / 2}
    return any(claimed[side](rank) != index for side, rank in claims.ordinals)


_SIDES = {
    **dict.fromkeys(("left", "leftmost", "leftward", "leftwards"), ("horizontal", "left")),
    **dict.fromkeys(("right", "rightmost", "rightward", "rightwards"), ("horizontal", "right")),
    **dict.fromkeys(("top", "upper", "topmost", "uppermost"), ("vertical", "top")),
    **dict.fromkeys(("bottom", "lower", "bottommost", "lowermost"), ("vertical", "bottom")),
}
_RELATIONS = {
    "above": ("vertical", "top"),
    **dict.fromkeys(("below", "beneath", "under", "underneath"), ("vertical", "bottom")),
}
"""Words that place something only in relation to a center; alone they relate to other things."""

_ANCHORS = frozenset(["center", "middle", "midpoint", "midline"])
_CENTERS = _ANCHORS | {"centered", "central"}
_AXES = {
    **dict.fromkeys(("horizontal", "horizontally"), "horizontal"),
    **dict.fromkeys(("vertical", "vertically"), "vertical"),
}
_SLIGHTLY = frozenset(["slightly", "just", "somewhat", "marginally", "little", "bit", "touch"])
# fmt: off
_LINKING = frozenset([
    "to", "the", "and", "or", "of", "its", "very", "exact", "hand", "side", "a", "both", "axis", "axes", "line",
    "along", "toward",
])
_ADVERBIAL_RIGHT = frozenset([
    "above", "below", "next", "beside", "at", "on", "in", "where", "under", "over", "behind", "around", "after",
    "before",
])
# fmt: on


def _relates_to_center(words: list[str], position: int) -> bool:
    """Whether "above", "left of" and the like lead on to a center through linking words alone."""
    for word in words[position + 1 :]:
        if word in _ANCHORS:
            return True
        if word != "," and not any(word in known for known in (_LINKING, _SLIGHTLY, _AXES, _SIDES, _RELATIONS)):
            return False
    return False


def _is_side(words: list[str], position: int) -> bool:
    """Whether a side word names a side: not "on top of", "left behind", "right next to", "left of a stripe"."""
    word = words[position]
    before = words[position - 1] if position else ""
    after, second = [*words[position + 1 : position + 3], "", ""][:2]
    if after == "of" and (second in {"a", "an", "another"} or (word, before) == ("top", "on")):
        return False
    named = before in {"the", "its", "and", "or", "far", "hand"} or before in _SIDES or before in _CENTERS
    if word == "right":
        return after not in {"angle", "angles", "angled"} and (named or after not in _ADVERBIAL_RIGHT)
    return word != "left" or named or after not in {"behind", "over", "out", "open"}


def _is_center(words: list[str], position: int) -> bool:
    """Whether a center word speaks of the frame's center: not "off center", "away from the center", "a dark center"."""
    if set(words[max(0, position - 3) : position]) & {"off", "away", "from", "beyond"}:
        return False
    return words[position] not in _ANCHORS or not {"a", "an"} & set(words[max(0, position - 2) : position])


def _axes_of_center(words: list[str], position: int) -> set[str]:
    """The axes that qualify a center: "vertical center", "centered horizontally", "center of the vertical axis"."""
    axes = set()
    for word in reversed(words[max(0, position - 3) : position]):
        if word in _AXES:
            axes.add(_AXES[word])
        elif word != "and":
            break
    if axes or words[position + 1 : position + 2] not in (["of"], ["along"], ["both"], *([word] for word in _AXES)):
        return axes
    for word in words[position + 1 : position + 7]:
        if word in _AXES:
            axes.add(_AXES[word])
        elif word not in {"of", "along", "both", "the", "and"}:
            break
    return axes


_FRAME_WORDS = (
    "edges?|sides?|left|right|half|part|third|quarter|corner|center|portion|section|area|region|end|of|and|or|most|hand"
)
_REWORDED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[-\u2010-\u2015]", " "),
        ("\u2019", "'"),
        (r"\s+", " "),
        (r"\bcentre(d?)\b", r"center\1"),
        (r"\btowards\b", "toward"),
        (r"\bmid ?(?:height|way up|way down)\b|\bhalf ?way (?:up|down)\b", "vertically centered"),
        (r"\b(?:mid|half) ?way (?:across|along)\b", "horizontally centered"),
        (r"\bbetween (?:the |its )?left\b[^,;.:]*?\bright\b(?: edges?| sides?| borders?)?", "horizontally centered"),
        (r"\bbetween (?:the |its )?top\b[^,;.:]*?\bbottom\b(?: edges?| sides?| borders?)?", "vertically centered"),
    )
)


def _normalize(phrase: str, names: Collection[str]) -> str:
    text = phrase.lower()
    for pattern, replacement in _REWORDED:
        text = pattern.sub(replacement, text)
    for name in names:
        escaped = re.escape(name.lower())
        if " " in name:
            text = re.sub(rf"\b{escaped}\b", "it", text)
        elif name.lower() in _SIDES or name.lower() in _CENTERS:
            # A bare "top" is the part where it stands as a noun, and a side in "the top edge", "the top of".
            text = re.sub(rf"\b(the|its|this|that|'s) {escaped}\b(?! (?:{_FRAME_WORDS})\b)", r"\1 it", text)
    return text


_RANK = rf"(?P<rank>{'|'.join(ORDINALS)}|\d+(?:st|nd|rd|th))"
_COUNT = rf"(?:the |all )?(?:{'|'.join(NUMBERS)}|many|several|\d+)\b"
_ORDER = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b{_RANK}(?: [\w']+){{0,6}}? from (?:the )?(?:far )?(?P<side>left|right)\b"
        r"(?: to (?:the )?(?:left|right)\b)?",
        rf"\bfrom (?:the )?(?P<side>left|right)(?: to (?:the )?(?:left|right))?,? (?:the )?{_RANK}\b",
        rf"\b(?:{_RANK} )?(?P<side>left|right) ?most\b(?! (?:{_FRAME_WORDS.replace('|of', '')})\b)",
        r"\b(?P<rank>)(?P<side>left|right)(?: \w+)? (?:of|among) (?:the )?two\b",
        rf"\b(?P<rank>)(?P<side>middle)(?: \w+){{0,2}}? (?:of|among) {_COUNT}",
    )
)


def _take_ordinals(text: str) -> tuple[str, set[tuple[str, int]]]:
    """Cut claims about the order of instances out of the text."""
    ordinals = set()
    for pattern in _ORDER:
        for match in pattern.finditer(text):
            side, rank = match["side"], match["rank"]
            number = 1 if not rank else ORDINALS.index(rank) + 1 if rank in ORDINALS else int(rank[:-2])
            ordinals.add((side, 0 if side == "middle" else number))
        text = pattern.sub(" ", text)
    return text, ordinals


_SPAN = re.compile(
    r"\b(?:span|cover|fill|occup|stretch|extend|dominat|tak(?:es|e|ing) up)\w*\b(?P<extent>[^,;.:]*?)"
    r"(?=[,;.:]|$| and (?:is|sits|lies|located|positioned|situated|close|near|toward|slightly)\b"
    r"| (?:which|but|with|while|that|near|close|toward)\b)"
)
_LEFT_TO_RIGHT = r"\bleft\b.*\bto\b.*\bright\b|\bright\b.*\bto\b.*\bleft\b|\bside to side\b"
_TOP_TO_BOTTOM = r"\btop\b.*\bto\b.*\bbottom\b|\bbottom\b.*\bto\b.*\btop\b"
_MOST = re.compile(
    r"\b(?:most|much|majority|nearly|almost|entire|entirety|whole|all|full|throughout|large (?:part|portion|area))\b"
    rf"|{_LEFT_TO_RIGHT}|{_TOP_TO_BOTTOM}"
)
_HORIZONTALLY = re.compile(rf"\bhorizontal|\bwidth\b|{_LEFT_TO_RIGHT}")
_VERTICALLY = re.compile(rf"\bvertical|\bheight\b|{_TOP_TO_BOTTOM}")


def _take_spans(text: str) -> tuple[str, set[tuple[str, str]]]:
    """Cut claims that something spans its frame, along one axis or both, out of the text."""
    claims: set[tuple[str, str]] = set()

    def take(match: re.Match[str]) -> str:
        extent = match["extent"]
        if not _MOST.search(extent):
            return match[0]
        horizontally, vertically = bool(_HORIZONTALLY.search(extent)), bool(_VERTICALLY.search(extent))
        if horizontally or not vertically:
            claims.add(("horizontal", "spans"))
        if vertically or not horizontally:
            claims.add(("vertical", "spans"))
        return ","

    return _SPAN.sub(take, text), claims
