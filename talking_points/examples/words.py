"""Are a description's words true? Judged against annotations, without any localizer.

A localizer can be moved to the right place by false words, so the truth of the words is reported beside every score
that a localizer gives, and may be part of a reward.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from talking_points.candidates.directions import contradicts, contradicts_order
from talking_points.descriptions.levels import Levels, claims_of, split_levels
from talking_points.descriptions.nouns import object_names, part_names

COLOURS = frozenset(
    [
        "black",
        "white",
        "grey",
        "gray",
        "silver",
        "brown",
        "tan",
        "beige",
        "cream",
        "red",
        "pink",
        "orange",
        "yellow",
        "golden",
        "gold",
        "green",
        "olive",
        "teal",
        "turquoise",
        "blue",
        "navy",
        "purple",
        "violet",
        "maroon",
    ]
)
"""Words by which the look of a point is compared; compound names ("light brown") count by their colour."""


@dataclass(frozen=True)
class Facts:
    """What annotations say about a point. ``part`` and the last two places are None for bare keypoints (AP-10K)."""

    object: str
    part: str | None
    object_location: str
    part_location: str | None
    point_location: str | None
    instance_index: int
    instance_count: int


@dataclass(frozen=True)
class WordReport:
    """Shares in percent over a set of descriptions; NaN where nothing could be judged.

    object_named, part_named: descriptions that name the true object and part.
    true_words: of all levels of all points whose annotation gives a place, those whose description states a place that
        does not contradict it. A level without any claim counts as not true, so silence gains nothing.
    colour, colour_chance: descriptions whose look shares a colour with the reference's; the same with the references
        exchanged at random, which is what a describer that sees nothing would reach.
    """

    object_named: float
    part_named: float
    true_words: float
    colour: float
    colour_chance: float


def claims_true(description: str, facts: Facts) -> list[bool]:
    """One entry per level with an annotated place, from coarse to fine, and one for a claimed order among its like."""
    levels = _levels(description, facts)
    names = tuple(sorted({*object_names(facts.object), *_parts(facts)}))
    judged = [_agrees(levels.object_place if facts.part else _about_image(description), facts.object_location, names)]
    if facts.part:
        judged += [
            _agrees(said, annotated, names)
            for said, annotated in (
                (levels.part_place, facts.part_location),
                (levels.point_place, facts.point_location),
            )
            if annotated
        ]
    claims = claims_of(description.lower(), names)
    if claims.ordinals:
        judged.append(not contradicts_order(claims, facts.instance_index, facts.instance_count))
    return judged


def judge_words(
    descriptions: Sequence[str], facts: Sequence[Facts], references: Sequence[str] | None = None, seed: int = 0
) -> WordReport:
    """Judge descriptions (N,) against their facts and, for colours, against reference descriptions."""
    levels = [_levels(text, fact) for text, fact in zip(descriptions, facts, strict=True)]
    judged = [true for text, fact in zip(descriptions, facts, strict=True) for true in claims_true(text, fact)]
    pairs = list(zip(levels, facts, strict=True))
    colour = chance = float("nan")
    if references is not None:
        said = [colours(level.look) for level in levels]
        wanted = [colours(_levels(text, fact).look) for text, fact in zip(references, facts, strict=True)]
        exchanged = np.random.default_rng(seed).permutation(len(wanted))
        colour = _share(bool(a & b) for a, b in zip(said, wanted, strict=True) if b)
        chance = _share(bool(a & wanted[index]) for a, index in zip(said, exchanged, strict=True) if wanted[index])
    return WordReport(
        object_named=_share(level.object_named for level, _ in pairs),
        part_named=_share(level.part_named for level, fact in pairs if fact.part),
        true_words=_share(judged),
        colour=colour,
        colour_chance=chance,
    )


def colours(text: str | None) -> frozenset[str]:
    """The colour words of a text."""
    return frozenset(re.findall(r"[a-z]+", (text or "").lower())) & COLOURS


def _levels(description: str, facts: Facts) -> Levels:
    return split_levels(description, object_names(facts.object), _parts(facts))


def _parts(facts: Facts) -> frozenset[str]:
    # Without an annotated part any other name may stand there; one that never occurs keeps the levels apart.
    return part_names(facts.object, facts.part) if facts.part else frozenset({"\0"})


_IMAGE_CLAUSE = re.compile(r".*?\b(?:image|picture|photo)\b[^,;.]*", re.DOTALL)


def _about_image(description: str) -> str:
    """What a description of any object says of its place in the image; all of it when it names no image.

    Who describes an animal of unknown parts, perhaps by a wrong name, goes on to places within the animal.
    """
    text = description.lower()
    found = _IMAGE_CLAUSE.match(text)
    return found[0] if found else text


def _agrees(said: str | None, annotated: str, names: tuple[str, ...]) -> bool:
    if not said:
        return False
    claims = claims_of(said, names)
    return bool(claims.horizontal or claims.vertical) and not contradicts(claims, claims_of(annotated, names))


def _share(values: Sequence[bool] | Iterator[bool]) -> float:
    judged = list(values)
    return 100 * float(np.mean(judged)) if judged else float("nan")
