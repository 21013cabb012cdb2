"""Questions and answers in words, read from one YAML file and filled with what a row is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from talking_points.config import ConfigError, Section
from talking_points.instructions.elements import KINDS, PLACEHOLDERS, Kind
from talking_points.records import derive_seed
from talking_points.regular_files import read_text
from talking_points.yaml_text import load_yaml

_PLACEHOLDER = re.compile(r"\{(\w*)\}")

Frame = Annotated[str, Field(min_length=3, max_length=400)]


class _OfKind(Section):
    questions: Annotated[tuple[Frame, ...], Field(min_length=1, max_length=100)]
    answers: Annotated[tuple[Frame, ...], Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class Phrasings:
    """The questions and answers of every kind. ``digest``: sha256 of the file's text, 64 hex digits."""

    questions: Mapping[Kind, tuple[str, ...]]
    answers: Mapping[Kind, tuple[str, ...]]
    digest: str

    def fill(
        self, kind: Kind, elements: Mapping[str, str], seed: int, row: str, variants: int | None = None
    ) -> tuple[str, str]:
        """A question and an answer with ``elements`` (expression, point, box, mask as text) in their places.

        Both are drawn from ``seed`` and ``row`` among the first ``variants`` of the kind.
        """
        drawn = []
        for name, frames in (("question", self.questions[kind]), ("answer", self.answers[kind])):
            chosen = frames[:variants]
            drawn.append(_fill(chosen[derive_seed(seed, row, name) % len(chosen)], elements))
        return drawn[0], drawn[1]


def load_phrasings(name: str) -> Phrasings:
    """The phrasings in a shipped file of ``prompts/`` ("instructions"), or in a .yaml file given by its path.

    Raises ``ConfigError`` for a file that is not there, is no YAML, or in which a kind lacks its questions, its
    answers, or in one of them the place of what it asks with or answers with.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else None
    source = file or resources.files("prompts") / f"{name}.yaml"
    try:
        text = read_text(file) if file else source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ConfigError(
            f"cannot read the phrasings {name!r} ({reason}): expected 'instructions', or the path of a .yaml file"
        ) from error
    return _parse(text, name)


@lru_cache(maxsize=4)
def _parse(text: str, name: str) -> Phrasings:
    try:
        found = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: the phrasings are not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{name}: expected a mapping of kinds to questions and answers, found {type(found).__name__}")
    missing, unknown = [kind for kind in KINDS if kind not in found], [kind for kind in found if kind not in KINDS]
    if missing or unknown:
        raise ConfigError(
            f"{name}: expected phrasings of {', '.join(KINDS)}; missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(map(str, unknown)) or 'none'}"
        )
    sections: dict[Kind, _OfKind] = {}
    for kind, value in found.items():
        try:
            sections[kind] = _OfKind.model_validate(value)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            raise ConfigError(f"{name}: {kind}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
        _check_frames(name, kind, sections[kind])
    questions = {kind: sections[kind].questions for kind in KINDS}
    answers = {kind: sections[kind].answers for kind in KINDS}
    return Phrasings(questions, answers, sha256(text.encode()).hexdigest())


def _check_frames(name: str, kind: Kind, section: _OfKind) -> None:
    asked, answered = (PLACEHOLDERS[element] for element in KINDS[kind])
    for frames, wanted in ((section.questions, asked), (section.answers, answered)):
        for frame in frames:
            places = _PLACEHOLDER.findall(frame)
            rest = _PLACEHOLDER.sub("", frame)
            if places != [wanted] or any(sign in rest for sign in "[]{}") or not frame.isprintable():
                raise ConfigError(
                    f"{name}: {kind}: expected {{{wanted}}} once, no other place, no brackets and one line of text; "
                    f"found {frame[:80]!r}"
                )


def _fill(frame: str, elements: Mapping[str, str]) -> str:
    """What is filled in is never looked at for places of its own."""
    return _PLACEHOLDER.sub(lambda match: elements[match[1]], frame)


def describe_phrasings(name: str) -> dict[str, Any]:
    """What a manifest says of the phrasings in use."""
    return {"name": Path(name).name, "sha256": load_phrasings(name).digest}
