"""Sentences without a model: captions and descriptions composed from annotations and measurements.

The order is the paper's (section 3.1): object in image, part in object, point in part, look of the point. Wording
is drawn by a seed from small sets of phrasings that mean the same. Places are worded by ``candidates.spatial``.
Generated text is American English, as the paper's is.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from talking_points.candidates.spatial import instance_phrase
from talking_points.descriptions.local_appearance import (
    MILD_CONTRAST,
    SMALL_BLOB,
    STRONG_CONTRAST,
    STRONG_ENERGY,
    LocalAppearance,
)
from talking_points.descriptions.nouns import indefinite, is_plural, possessive, pronoun, say_object, say_part
from talking_points.records import Candidate


@dataclass(frozen=True)
class Wording:
    """A candidate's names and places as they are said.

    ``instance`` names the object among its like, with its article: "the leftmost of two dogs". ``part_place`` names
    the object ("close to the top edge of the dog"), ``point_place`` leaves the part open ("in the center").
    """

    object: str
    instance: str
    object_place: str
    part: str
    part_place: str
    point_place: str

    @classmethod
    def of(cls, candidate: Candidate) -> Wording:
        spoken = say_object(candidate.object)
        ordered = candidate.instance_exact and candidate.instance_count > 1
        return cls(
            object=spoken,
            instance=instance_phrase(candidate.instance_index, candidate.instance_count, spoken)
            if ordered
            else f"the {spoken}",
            object_place=candidate.object_location,
            part=say_part(candidate.object, candidate.part),
            part_place=re.sub(rf"\bthe {re.escape(candidate.object)}\b", f"the {spoken}", candidate.part_location),
            point_place=candidate.point_location,
        )

    @property
    def who(self) -> str:
        """The relative pronoun for the object."""
        return "who" if self.object == "person" else "which"

    @property
    def part_clause(self) -> str:
        """The part's place as a relative clause: "which is close to ...", "which spans most of ..."."""
        verb, spans = ("are", "span") if is_plural(self.part) else ("is", "spans")
        if self.part_place.startswith("spanning "):
            return f"which {spans} {self.part_place.removeprefix('spanning ')}"
        return f"which {verb} {self.part_place}"

    @property
    def point_in_part(self) -> str | None:
        """The point's place with its part appended, where English allows it."""
        if self.point_place.endswith("centered"):
            return None
        return f"{self.point_place} of the {self.part}"


def compose_object_caption(candidate: Candidate, seed: int) -> str:
    """One sentence about the object from its annotations: kind, order among its like, place, the part at hand."""
    words, draw = Wording.of(candidate), random.Random(seed)
    part = f"{pronoun(words.object)} {words.part}"
    instance = words.instance[0].upper() + words.instance[1:]
    shown = f"The image shows {words.instance}, {words.who} {words.object_place}"
    return draw.choice(
        (
            f"{instance} {words.object_place}, with {part} {words.part_place}.",
            f"{shown}, and {part} can be seen {words.part_place}.",
            f"{instance} {words.object_place}; {part} can be seen {words.part_place}.",
        )
    )


def compose_local_caption(appearance: LocalAppearance, seed: int) -> str:
    """A noun phrase for the measured look of the point: "a small, round, black spot on a light brown surface"."""
    draw = random.Random(seed)
    if appearance.shape in ("round spot", "oval spot"):
        return _spot_phrase(appearance, draw)
    if appearance.shape == "line":
        return _line_phrase(appearance, draw)
    if appearance.shape == "edge":
        return _edge_phrase(appearance, draw)
    if appearance.shape == "corner":
        return _corner_phrase(appearance, draw)
    return _surface_phrase(appearance, draw)


def _compare_colour(appearance: LocalAppearance, draw: random.Random) -> str:
    """How the point's colour compares with its surroundings."""
    if appearance.colour == appearance.surround:
        return f"slightly {'lighter' if appearance.lighter else 'darker'} than its surroundings"
    around = indefinite(appearance.surround)
    if appearance.difference >= STRONG_CONTRAST:
        return draw.choice(
            (
                f"that stands out clearly against {around} background",
                f"in sharp contrast to the {appearance.surround} area around it",
                f"set off against {around} surface",
            )
        )
    return draw.choice((f"on {around} surface", f"surrounded by {around} area", f"against {around} background"))


def _spot_phrase(appearance: LocalAppearance, draw: random.Random) -> str:
    small, large = appearance.size <= SMALL_BLOB, appearance.size > 2 * SMALL_BLOB
    shape = "round" if appearance.shape == "round spot" else "oval"
    noun = "patch" if large else draw.choice(("spot", "mark") if small else ("spot", "patch"))
    size = "small, " if small else ""
    return f"{indefinite(f'{size}{shape}, {appearance.colour} {noun}')} {_compare_colour(appearance, draw)}"


def _line_phrase(appearance: LocalAppearance, draw: random.Random) -> str:
    thickness = draw.choice(("thin", "narrow")) if appearance.size <= SMALL_BLOB else "broad"
    noun = draw.choice(("line", "streak", "strip"))
    line = indefinite(f"{thickness}, {appearance.direction}, {appearance.colour} {noun}")
    return f"{line} {_compare_colour(appearance, draw)}"


def _edge_phrase(appearance: LocalAppearance, draw: random.Random) -> str:
    edge = indefinite(f"{appearance.direction} {draw.choice(('edge', 'border', 'boundary'))}")
    if appearance.sides is None:
        return f"{edge} between a darker and a lighter shade of {appearance.colour}"
    dark, light = appearance.sides
    return draw.choice(
        (
            f"{edge} where {dark} meets {light}",
            f"{edge} between {indefinite(dark)} and {indefinite(light)} area",
            f"{edge} that separates {dark} from {light}",
        )
    )


def _corner_phrase(appearance: LocalAppearance, draw: random.Random) -> str:
    noun = draw.choice(("detail", "structure"))
    if appearance.colour == appearance.surround or appearance.difference < MILD_CONTRAST:
        return f"an angular, {appearance.colour} {noun} with edges in more than one direction"
    return f"an angular, {appearance.colour} {noun} {_compare_colour(appearance, draw)}"


def _surface_phrase(appearance: LocalAppearance, draw: random.Random) -> str:
    colour, coloured = appearance.colour, indefinite(appearance.colour)
    if appearance.texture == "striped":
        stripes = "slanting stripes" if appearance.direction == "diagonal" else f"{appearance.direction} stripes"
        choices = [f"{coloured} surface crossed by {stripes}", f"{coloured} surface with {stripes}"]
    elif appearance.texture == "smooth":
        choices = [
            f"a smooth, even, {colour} surface",
            f"{coloured} surface with hardly any texture",
            f"a plain, {colour} surface",
        ]
    elif appearance.texture == "fine":
        choices = [f"a finely textured, {colour} surface", f"{coloured} surface with a fine grain"]
    elif appearance.texture_energy >= STRONG_ENERGY:
        choices = [
            f"{coloured} surface with strong light and dark variations",
            f"{coloured} surface with a strong pattern of light and dark",
        ]
    else:
        choices = [
            f"{coloured} surface with soft changes in brightness",
            f"a slightly uneven, {colour} surface",
            f"a softly shaded, {colour} surface",
        ]
    phrase = draw.choice(choices)
    if appearance.colour != appearance.surround and appearance.difference >= MILD_CONTRAST:
        phrase += f" {draw.choice(('next to', 'that borders on'))} {indefinite(appearance.surround)} area"
    return phrase


_LEAD_IN = re.compile(
    r"^(?:(?:in|at) the (?:very )?(?:center|centre|middle)(?: of (?:the|this) \w+)?,? )?"
    r"(?:(?:there (?:is|are|appears to be)|it (?:is|shows)|this is|(?:you|we|one) can see"
    r"|(?:the|this) (?:[\w-]+ ){0,3}?"
    r"(?:image|picture|photo|photograph|close-up|crop|region|area|point|keypoint|center|centre)"
    r"(?: [\w-]+){0,4}? (?:shows|features|depicts|displays|contains|reveals|is|has)) )?",
    re.IGNORECASE,
)
_UNFIT = re.compile(
    r"\d|%|\b(?:image|picture|photo|crop|caption|pixels?|sorry|cannot|unable|bounding)\b|[{}<>`*#\[\]]", re.IGNORECASE
)
_STATEMENT = re.compile(r"^(?:the|this|its|their|it)\b[^,]*\b(?:is|are|has|have|looks|appears|shows)\b", re.IGNORECASE)


def look_clause(local_caption: str, part: str, draw: random.Random) -> str:
    """The fourth level from a local caption of any backend.

    A noun phrase is set into "in a region that features ..."; a sentence of its own becomes "where ...". Of a caption
    that talks about images or figures only the clauses without them are used. Where nothing is left, the clause says
    nothing about the look, and the verifier will reject it.
    """
    sentence = re.split(r"(?<=[.!?])\s", " ".join(local_caption.split()), maxsplit=1)[0].rstrip(" .!?;:,")
    phrase = _LEAD_IN.sub("", sentence, count=1)
    if _UNFIT.search(phrase):
        phrase = next((clause for clause in re.split(r", | and | with ", phrase) if not _UNFIT.search(clause)), "")
    if len(phrase.split()) < 2:
        return f"in a region of the {part}"
    if not re.match(r"[A-Z]{2}", phrase):
        phrase = phrase[0].lower() + phrase[1:]
    if _STATEMENT.match(phrase):
        return f"where {phrase}"
    return draw.choice(_LOOKS).format(phrase)


_LOOKS = (
    "in a region that features {}",
    "in a region that shows {}",
    "in a region showing {}",
    "in an area that features {}",
    "in an area showing {}",
    "where one can see {}",
    "where there is {}",
)


def compose_draft(candidate: Candidate, local_caption: str, seed: int) -> str:
    """The four levels as plain clauses: correct and complete, not yet flowing."""
    words, draw = Wording.of(candidate), random.Random(seed)
    return (
        f"The point is on {words.instance}, {words.who} {words.object_place}; "
        f"it is on {pronoun(words.object)} {words.part}, {words.part_clause}; "
        f"within the {words.part}, the point is {words.point_place}"
        f"{_append_clause(look_clause(local_caption, words.part, draw))}."
    )


def compose_description(candidate: Candidate, local_caption: str, seed: int) -> str:
    """One flowing sentence through the four levels, from coarse to fine."""
    words, draw = Wording.of(candidate), random.Random(seed)
    point = draw.choice(("point", "point", "keypoint"))
    own = f"{pronoun(words.object)} {words.part}"
    if " " not in words.object:
        own = draw.choice((own, f"{possessive(words.object)} {words.part}"))
    part_places = [words.part_clause, words.part_place]
    if draw.random() < 0.25:
        verb = draw.choice(("is", "lies", "sits"))
        start = f"On {words.instance}, {words.who} {words.object_place}, the {point} {verb} on {own}"
    else:
        verb = draw.choice(("is", "lies", "is located", "is located", "can be found"))
        precisely = draw.choice(("specifically", "specifically", "more precisely"))
        start = f"The {point} {verb} on {words.instance}, {words.who} {words.object_place}, {precisely} on {own}"
        if not words.part_place.startswith("spanning "):
            part_places += [f"situated {words.part_place}", f"located {words.part_place}"]
    this = "these" if is_plural(words.part) else "this"
    within = f"within {draw.choice(('the', this))} {words.part}"
    point_places = [
        f"and {within}, the {point} {draw.choice(('is', 'lies', 'is located'))} {words.point_place}",
        f"and {within}, it {draw.choice(('is', 'lies', 'sits'))} {words.point_place}",
    ]
    if words.point_in_part:
        point_places.append(f"with the {point} {draw.choice(('sitting', 'lying', 'located'))} {words.point_in_part}")
    look = _append_clause(look_clause(local_caption, words.part, draw))
    return f"{start}, {draw.choice(part_places)}, {draw.choice(point_places)}{look}."


def _append_clause(clause: str) -> str:
    return f", {clause}" if clause else ""
