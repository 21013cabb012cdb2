"""Checks of descriptions of keypoints, the same for every author: a program, a language model, a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from talking_points.descriptions.keypoint_facts import OPPOSITES, facts_of, has_facts
from talking_points.models.capellm.conversation import MARKER
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets, side_of, swap_sides

FEWEST_WORDS, MOST_WORDS = 12, 60


@dataclass(frozen=True)
class Problem:
    """One text that fails a check: which, the check's short name, and what was found."""

    keypoint: str
    check: str
    detail: str

    def __str__(self) -> str:
        return f"{self.keypoint}: {self.check} ({self.detail})"


def check_texts(keypoints: KeypointSet, texts: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the texts of a set, by keypoint name; nothing when all pass.

    Each text mentions its own keypoint, no keypoint of another set, neither side but its own, nothing that the facts
    contradict, and has 12 to 60 words on one line without markers; no two are equal, and mirrored keypoints have
    mirrored texts.
    """
    problems = [Problem(name, "missing", "no text") for name in keypoints.names if not texts.get(name, "").strip()]
    given = {name: texts[name] for name in keypoints.names if texts.get(name, "").strip()}
    for name, text in given.items():
        problems += [Problem(name, check, detail) for check, detail in _text_problems(keypoints, name, text)]
    seen: dict[str, str] = {}
    for name, text in given.items():
        plain = " ".join(text.lower().split())
        if plain in seen:
            problems.append(Problem(name, "repeated", f"the same as of {seen[plain]}"))
        seen.setdefault(plain, name)
    for one, other in keypoints.flip_pairs:
        left, right = keypoints.names[one], keypoints.names[other]
        if left in given and right in given and swap_sides(given[left]).lower() != given[right].lower():
            problems.append(Problem(right, "not_mirrored", f"differs from that of {left} in more than the side"))
    return problems


def _text_problems(keypoints: KeypointSet, name: str, text: str) -> list[tuple[str, str]]:
    found = []
    words = len(text.split())
    if not FEWEST_WORDS <= words <= MOST_WORDS:
        found.append(("length", f"{words} words, expected {FEWEST_WORDS} to {MOST_WORDS}"))
    if "\n" in text or MARKER.search(text):
        found.append(("marker", "a line break, a role, an end marker or an image placeholder"))
    mentioned = mentions(text, keypoints.names)
    if name not in mentioned:
        found.append(("own_name", "does not mention its keypoint"))
    rest = _strip_names(text, keypoints.names)
    strangers = [other for other in _foreign_names(keypoints) if re.search(rf"\b{re.escape(other)}\b", rest)]
    if strangers:
        found.append(("foreign_name", f"mentions {strangers[0]}, which is no keypoint of {keypoints.key}"))
    side = side_of(name)
    wrong = {"left": "right", "right": "left"}.get(side or "")
    if wrong and re.search(rf"\b{wrong}\b", rest, re.IGNORECASE):
        found.append(("side", f"says {wrong} of a keypoint on the {side}"))
    if has_facts(keypoints):
        found += [("contradiction", detail) for detail in _contradictions(keypoints, name, text)]
    return found


def mentions(text: str, names: tuple[str, ...]) -> set[str]:
    """The names that a text mentions, longer ones first: "left eyebrow" is no mention of "left eye"."""
    found = set()
    for name in sorted(names, key=len, reverse=True):
        pattern = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
        if pattern.search(text):
            found.add(name)
            text = pattern.sub("#", text)
    return found


def _strip_names(text: str, names: tuple[str, ...]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(name)}\b", "#", text, flags=re.IGNORECASE)
    return text


def _foreign_names(keypoints: KeypointSet) -> list[str]:
    """Names of other sets that are more than an everyday word: "left eye", not "back"."""
    return sorted(
        {name for one in keypoint_sets().values() for name in one.names if " " in name} - set(keypoints.names)
    )


def _contradictions(keypoints: KeypointSet, name: str, text: str) -> list[str]:
    """Statements "above X" where the facts say below, and the like, whichever of both keypoints has the fact."""
    facts = facts_of(keypoints)
    found = []
    for relation, opposite in OPPOSITES.items():
        words = relation.replace("_", " ")
        for other in keypoints.names:
            if other == name or not re.search(rf"\b{words} (the )?{re.escape(other)}(?!\w| \w+ of)", text):
                continue
            denied = other in facts[name].relations.get(opposite, ())
            denied = denied or name in facts[other].relations.get(relation, ())
            if denied:
                found.append(f"says {words} {other}, the facts say the other way round")
    return found
