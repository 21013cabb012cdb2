"""Descriptions of keypoints by a language model, or from what the Point Descriptor saw: requests, answers, checks.

Of two keypoints that mirror each other one is written about; the other's text is the same with the sides exchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from talking_points.build_config import StepConfig
from talking_points.descriptions.answer_text import visible
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.descriptions.keypoint_checks import Problem, check_texts
from talking_points.descriptions.keypoint_facts import facts_of, has_facts
from talking_points.descriptions.keypoint_texts import KeypointText, compose, relations_of
from talking_points.descriptions.prompts import render
from talking_points.descriptions.steps import answer_or_error
from talking_points.records import derive_seed
from talking_points.sources.keypoint_sets import KeypointSet, swap_sides

Prompt = Literal["keypoint_description", "keypoint_merge"]

MOST_AT_ONCE = 24
"""Keypoints of one request: longer lists come back short."""


@dataclass
class Draft:
    """The texts of one set as they come in.

    texts: by name, those that pass so far; problems: why the others do not; seen: what the descriptor wrote by name.
    """

    keypoints: KeypointSet
    texts: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)

    @property
    def written(self) -> list[str]:
        """The names that are written about: of mirrored ones the first."""
        order = self.keypoints.mirror()
        return [name for index, name in enumerate(self.keypoints.names) if order[index] >= index]

    @property
    def open(self) -> list[str]:
        """Those of them without a text that passes."""
        return [name for name in self.written if name not in self.texts]

    def take(self, given: Mapping[str, str]) -> None:
        """Take up texts by name that pass the checks, with their mirrored ones; of others keep why not."""
        for name in self.open:
            if name not in given:
                self.problems.setdefault(name, "no text was given")
                continue
            text = " ".join(visible(given[name]).split())
            pair = {name: text, **self._mirrored(name, text)}
            found = [problem for problem in self._check({**self.texts, **pair}) if problem.keypoint in pair]
            if found:
                self.problems[name] = f"{found[0].check}: {found[0].detail}"
            else:
                self.texts |= pair
                self.problems.pop(name, None)

    def compose_rest(self) -> list[str]:
        """Take the rules' texts for those that are open; returns the names that were composed."""
        before = set(self.texts)
        for name in self.open:
            text = compose(self.keypoints, name)
            self.texts |= {name: text, **self._mirrored(name, text)}
        return [name for name in self.keypoints.names if name in self.texts and name not in before]

    def _mirrored(self, name: str, text: str) -> dict[str, str]:
        index = self.keypoints.names.index(name)
        other = self.keypoints.mirror()[index]
        return {} if other == index else {self.keypoints.names[other]: swap_sides(text)}

    def _check(self, texts: Mapping[str, str]) -> list[Problem]:
        return [problem for problem in check_texts(self.keypoints, texts) if problem.check != "missing"]

    def rows(self, author: str, version: int, provenance: str, composed: Sequence[str]) -> list[KeypointText]:
        """The set's rows for a file; composed ones are of the author rules and say why."""
        rows = []
        for index, name in enumerate(self.keypoints.names):
            if name in self.texts:
                of_rules = name in composed
                by, how = ("rules", f"composed in place of {author}") if of_rules else (author, provenance)
                rows.append(KeypointText(self.keypoints.key, name, index, self.texts[name], by, version, how))
        return rows


def keypoint_requests(draft: Draft, config: StepConfig, seed: int, attempt: int, prompt: Prompt) -> list[ChatRequest]:
    """Ask for the open texts of a set, some keypoints a request; those that were refused are shown why."""
    names = draft.open
    parts = [names[start : start + MOST_AT_ONCE] for start in range(0, len(names), MOST_AT_ONCE)]
    return [_request(draft, part, config, seed, f"{attempt}/{number}", prompt) for number, part in enumerate(parts)]


def _request(
    draft: Draft, names: Sequence[str], config: StepConfig, seed: int, place: str, prompt: Prompt
) -> ChatRequest:
    known = facts_of(draft.keypoints) if has_facts(draft.keypoints) else {}
    points = [
        {
            "name": name,
            "what": known[name].what if name in known else "",
            "on": known[name].on if name in known else "",
            "relations": relations_of(draft.keypoints, name) if name in known else "",
            "seen": draft.seen.get(name, ""),
            "problem": draft.problems.get(name, ""),
        }
        for name in names
    ]
    facts: dict[str, Any] = {
        "points": points,
        "names": list(draft.keypoints.names),
        "own_sides": draft.keypoints.side == "own",
        "structured": config.structured,
    }
    system, user = render(config.prompt or prompt, facts)
    name = f"{draft.keypoints.key}/{place}"
    return ChatRequest(
        id=name,
        step="generate",
        prompt=user,
        system=system,
        facts=facts,
        seed=derive_seed(seed, name, prompt),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        schema=_schema(names) if config.structured else None,
    )


def _schema(names: Sequence[str]) -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": texts, "required": list(names), "additionalProperties": False}


def read_keypoint_texts(completion: Completion | RequestError, request: ChatRequest) -> str | RequestError:
    """The texts in an answer as a JSON object by name, of those that were asked for; an error where there are none."""
    text = answer_or_error(completion)
    if not isinstance(text, str):
        return text
    found = _object_in(text)
    asked = {point["name"].lower(): point["name"] for point in request.facts["points"]}
    given = {" ".join(str(name).replace("_", " ").lower().split()): value for name, value in found.items()}
    texts = {asked[key]: text for key, text in given.items() if key in asked and isinstance(text, str) and text.strip()}
    if not texts:
        return RequestError(
            "malformed_texts", f"expected a JSON object of texts by keypoint, found {text[:80]!r}", retryable=True
        )
    return json.dumps(texts, ensure_ascii=False)


def _object_in(text: str) -> dict[str, Any]:
    """The JSON object in a text, with whatever stands around it; empty for none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1]) if 0 <= start < end else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


_PART = re.compile(
    r"\b(?:on|within) (?:its|the|this|that|a|an) ([a-z]+(?: [a-z]+)?)"
    r"(?=,| close| near| toward| at | situated| placed|\.)"
)
_HEIGHT = re.compile(r"\b(top|bottom|upper|lower|vertical(?:ly)? cent\w+)\b", re.IGNORECASE)
_HEIGHTS = {
    "top": "near its top",
    "upper": "in its upper part",
    "bottom": "near its bottom",
    "lower": "in its lower part",
}


def merge_seen(name: str, on: str, seen: str) -> str:
    """A description of a keypoint from what the descriptor wrote about it on one image, by rules.

    Kept are the part and how high on the object it is said to be; left out is what is about the image: its colours, the
    place of the object in it, and the viewer's left and right, which no name of a keypoint means.
    """
    _, _, behind = seen.partition("specifically")
    about = (behind or seen).split(" in a region", 1)[0].split(" where the", 1)[0]
    part = next((found[1] for found in _PART.finditer(about) if not re.search(r"\b(left|right)\b", found[1])), "")
    height = _HEIGHT.search(about)
    where = _HEIGHTS.get(height[1].lower(), "about halfway up") if height else ""
    first = f"The {name} belongs to {on or 'a part of the object'}."
    told = [f"a look at one object found it on the part called {part}"] if part else []
    told += [f"the place is {where}"] if where else []
    second = f" Seen on a single example, {' and '.join(told)}." if told else ""
    return first + (second or " A look at one example of the object said nothing else about its place.")
