"""Descriptions of keypoints: written from facts, read from files of any author, checked the same way.

A file of texts is JSON lines: a header with author, version and whose sides are meant, then one row
``{set, keypoint, index, text, author, version, provenance}`` per keypoint. Texts never name the object's category.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from talking_points.descriptions.keypoint_checks import Problem, check_texts
from talking_points.descriptions.keypoint_facts import Fact, Neighbours, facts_of, is_seen_from_front
from talking_points.regular_files import read_text
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets, side_of, swap_sides
from talking_points.whole_files import write_text

RULES, VERSION = "rules", 1
MOST_WORDS = 48
"""Of a rule-written text, unless its first relation alone takes more; the checks allow sixty."""
DENSE = 20
"""Sets with more keypoints than this are told apart by their rank along a curve too."""

Texts = dict[tuple[str, str], str]
"""Texts by (set, keypoint)."""


class TextsError(ValueError):
    """A file of texts that cannot be used: says which text is missing or wrong."""


@dataclass(frozen=True)
class KeypointText:
    """One row of a file: a text about a keypoint of a set, and who wrote it with what."""

    set: str
    keypoint: str
    index: int
    text: str
    author: str
    version: int
    provenance: str


def compose(keypoints: KeypointSet, name: str, sides: Literal["own", "viewer"] = "own") -> str:
    """Two sentences about a keypoint: what it is and on which part; where it is relative to its neighbours.

    ``sides``: "viewer" exchanges left and right everywhere, the keypoint's name included; only for sets whose object
    is always seen from the front. Raises ValueError for another set.
    """
    if sides == "viewer":
        if not is_seen_from_front(keypoints) or keypoints.side != "own":
            raise ValueError(f"{keypoints.key} is seen from any side: its texts can only mean the object's own sides")
        return swap_sides(_text(keypoints, name, "on the viewer's"))
    return _text(keypoints, name, "on the object's own" if keypoints.side == "own" else "on the viewer's")


def _text(keypoints: KeypointSet, name: str, whose: str) -> str:
    fact = facts_of(keypoints)[name]
    side = side_of(name)
    where = f", {whose} {side} side" if side else ""
    first = f"The {name} is {fact.what}, on {fact.on}{where}. It"
    return f"{first} {_relations(keypoints, name, fact, MOST_WORDS - len(first.split()))}."


def _relations(keypoints: KeypointSet, name: str, fact: Fact, room: int) -> str:
    """The first three relations that fit into so many words, neighbours along a curve before others."""
    phrases = [_describe_along(curve, len(keypoints) > DENSE) for curve in fact.curves[:2]]
    said = {end for curve in fact.curves[:2] for end in (curve.before, curve.behind)}
    for kind, others in fact.relations.items():
        if kind != "connected":
            phrases.append(f"lies {kind.replace('_', ' ')} {_list_names(others[:2])}")
        elif not said >= set(others):
            phrases.append(f"is connected to {_list_names(others[:2])}")
    partner = keypoints.names[keypoints.mirror()[keypoints.names.index(name)]]
    if partner != name:
        phrases.append(f"lies opposite the {partner}")
    chosen: list[str] = []
    for phrase in phrases:
        if len(chosen) < 3 and (not chosen or len(" and ".join([*chosen, phrase]).split()) <= room):
            chosen.append(phrase)
    return " and ".join([", ".join(chosen[:-1]), chosen[-1]] if len(chosen) > 1 else chosen)


def relations_of(keypoints: KeypointSet, name: str) -> str:
    """How a keypoint lies to others of its set, in words. Raises KeyError for a set without facts."""
    return _relations(keypoints, name, facts_of(keypoints)[name], MOST_WORDS)


def _describe_along(curve: Neighbours, ranked: bool) -> str:
    ends = [end for end in (curve.before, curve.behind) if end is not None]
    place = f"lies between {_list_names(ends)} along {curve.curve}" if len(ends) > 1 else f"lies next to the {ends[0]}"
    if len(ends) < 2:
        return f"{place} at the end of {curve.curve}"
    if ranked and curve.count > 4:
        place += f", number {curve.rank} of {curve.count}"
    return place


def _list_names(names: Sequence[str]) -> str:
    return " and ".join(f"the {name}" for name in names)


def rule_texts(keypoints: KeypointSet) -> dict[str, str]:
    """The rule-written text of every keypoint of a set with facts, by name."""
    return {name: compose(keypoints, name) for name in keypoints.names}


def texts_of_rules(sets: Iterable[KeypointSet] | None = None) -> list[KeypointText]:
    """Rows of the embedded author for every keypoint of the sets, those of MP-100 by default."""
    rows = []
    for one in keypoint_sets().values() if sets is None else sets:
        for index, (name, text) in enumerate(rule_texts(one).items()):
            rows.append(KeypointText(one.key, name, index, text, RULES, VERSION, f"facts/mp100.json {VERSION}"))
    return rows


def write_texts(rows: Sequence[KeypointText], path: Path) -> None:
    """Write a file of texts, whole or not at all."""
    authors = sorted({row.author for row in rows})
    header = {
        "header": "Left and right are meant as each keypoint set says: the object's own, unless the set says viewer.",
        "author": authors,
        "side": "own",
        "rows": len(rows),
    }
    lines = [header, *map(asdict, rows)]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def load_texts(author: str | Path, sets: Iterable[KeypointSet] | None = None) -> Texts:
    """The texts of the author "rules" or of a file, for every keypoint of the sets (those of MP-100 by default).

    Raises ``TextsError`` naming the first missing text, or what the checks find wrong with one.
    """
    wanted = list(keypoint_sets().values() if sets is None else sets)
    if author == RULES:
        return {(row.set, row.keypoint): row.text for row in texts_of_rules(wanted)}
    path = Path(author)
    found = {(row.set, row.keypoint): row.text for row in read_texts(path)}
    missing = [(one.key, name) for one in wanted for name in one.names if (one.key, name) not in found]
    if missing:
        raise TextsError(
            f"{path} lacks {len(missing)} texts, the first about {missing[0][1]!r} of {missing[0][0]}: write it, or "
            "take the author rules"
        )
    unknown = [
        f"{name!r} of {one.key}" for one in wanted for key, name in found if key == one.key and name not in one.names
    ]
    if unknown:
        raise TextsError(f"{path} describes keypoints that there are not: {', '.join(unknown[:5])}; take them out")
    problems = [problem for one in wanted for problem in check_set_texts(one, found)]
    if problems:
        raise TextsError(f"{path}: {len(problems)} texts fail the checks, the first: {problems[0]}")
    return {(one.key, name): found[one.key, name] for one in wanted for name in one.names}


def read_texts(path: Path) -> list[KeypointText]:
    """The rows of a file of texts as they are. Raises ``TextsError`` for a line that is no row, or a second text."""
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise TextsError(
            f"expected the author {RULES!r} or a file of texts, found {str(path)!r}: {error.strerror}"
        ) from error
    except UnicodeError as error:
        raise TextsError(
            f"expected a file of texts in UTF-8, found {str(path)!r}: {error}; take what 'talking-points "
            "describe-keypoints' writes"
        ) from error
    rows: dict[tuple[str, str], KeypointText] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            if "header" in values:
                continue
            row = KeypointText(**values)
            if not all(isinstance(one, str) for one in (row.set, row.keypoint, row.text)):
                raise ValueError("set, keypoint and text are texts")
            f"{row.set}{row.keypoint}{row.text}".encode()  # halves of characters
            if rows.setdefault((row.set, row.keypoint), row) is not row:
                raise ValueError(f"a second text about the {row.keypoint} of {row.set}")
        except (ValueError, TypeError, RecursionError) as error:
            raise TextsError(
                f"{path}, line {number}: expected a row of a text, found {line[:80]!r}: {error}"
            ) from error
    return list(rows.values())


def check_set_texts(keypoints: KeypointSet, texts: Mapping[tuple[str, str], str]) -> list[Problem]:
    """What is wrong with the texts about a set, of any author."""
    return check_texts(keypoints, {name: texts[keypoints.key, name] for name in keypoints.names})


def digest(texts: Mapping[tuple[str, str], str]) -> str:
    """A fingerprint of texts, whatever their order: 16 hex digits."""
    listed = sorted((*key, text) for key, text in texts.items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
