"""Conversations about keypoints as text, and which of their tokens are learnt. Needs no model and no torch.

A round is three lines, ``User: question``, ``Reference: description`` and ``Assistant: answer``; the answer ends with
the end marker, behind which the next round follows at once. The text stands behind the image and starts with a line
break. What is learnt is marked by places in the text, never by counting the tokens of pieces: tokens may span pieces.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from talking_points.escaping import in_one_line

ROLES = ("User", "Reference", "Assistant")
IGNORED_LABEL = -100
MARKER = re.compile(r"\b(User|Reference|Assistant):|</?s>|<\|[^|<>]*\|>|<im\w*>|<image>")
"""What a name or description must not hold: it would read as another role, an end or an image."""


OUTLINE = (
    "This is a conversation about one image: the {0} names a keypoint, the {1} says where such keypoints are, and the "
    "{2} gives the coordinates of this one."
)
"""What opens a conversation with an outline (CapeLLM, Table 6)."""

PARAPHRASES = (
    "Where is the {keypoint} of this object? Answer with coordinates.",
    "Give the coordinates of the {keypoint} of the object in this image.",
    "Point at the {keypoint} of this object and write down its coordinates.",
    "What are the coordinates of this object's {keypoint}?",
    "Find the {keypoint} of the object that is shown. At which coordinates is it?",
    "In this image, at which coordinates does the {keypoint} of the object lie?",
    "Say where the object has its {keypoint}, as coordinates.",
    "Locate the {keypoint} of this object in the image and give the place.",
)
"""Other wordings of the question (CapeLLM, Table 6, has two dozen; these are our own)."""

STEP_QUESTION = "What is the object in this image?"
"""Asked before the keypoints where conversations go step by step (CapeLLM, Table 7)."""


LONGEST = 10_000
"""Characters of a name or description: what a model reads at most is far shorter, and tokenizers are slow on more."""


class QueryError(ValueError):
    """A question that cannot be asked."""


@dataclass(frozen=True)
class Query:
    """A keypoint by name and, where there is one, description; ``listed`` are all names of its set."""

    name: str
    description: str | None = None
    listed: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, query: Query | str | tuple[str, str | None]) -> Query:
        """A query from a name, a pair of name and description, or a query."""
        if isinstance(query, Query):
            return query
        return cls(query) if isinstance(query, str) else cls(*query)

    def clean(self, forbidden: Sequence[str] = ()) -> Query:
        """The query in one line, without invisible characters and markers; ``forbidden`` are further markers.

        Raises ``QueryError`` when nothing is left of the name, and for texts of more than ``LONGEST`` characters.
        """
        for text in (self.name, self.description or ""):
            if len(text) > LONGEST:
                raise QueryError(
                    f"expected names and descriptions of at most {LONGEST:,} characters, found one of {len(text):,} "
                    f"({text[:40]!r} ...): shorten it"
                )
        name = plain_text(self.name, forbidden)
        if not name:
            raise QueryError(
                f"expected the name of a keypoint, for example 'left front paw', found {self.name!r}: say what to find"
            )
        listed = tuple(filter(None, (plain_text(one, forbidden) for one in self.listed)))
        return Query(name, plain_text(self.description or "", forbidden) or None, listed)


def plain_text(text: str, forbidden: Sequence[str] = ()) -> str:
    """One line without roles, end markers and image placeholders, in characters that a tokenizer takes."""
    before, text = None, in_one_line(text)
    while text != before:  # what is taken out may have stood inside another marker
        before = text
        text = MARKER.sub(" ", text)
        for marker in filter(None, forbidden):
            text = text.replace(marker, " ")
    return " ".join(text.split())


@dataclass(frozen=True)
class Round:
    """A question with its answer; an answer of None is for the model to give, and ends the conversation. An empty one
    is the end marker alone.

    ``question`` holds {keypoint} and stands in place of the template's.
    """

    query: Query
    answer: str | None = None
    question: str | None = None


@dataclass(frozen=True)
class Template:
    """The wording of a conversation. ``question`` holds {keypoint}; ``end`` closes an answer.

    ``describe``, ``outline`` and ``list_keypoints``: see the configuration.
    """

    question: str
    end: str
    describe: bool = True
    roles: tuple[str, str, str] = ROLES
    outline: bool = False
    list_keypoints: bool = False

    def round(self, one: Round) -> tuple[str, tuple[int, int] | None]:
        """A round's text, and where in it the answer stands, with its leading space and its end."""
        user, reference, assistant = self.roles
        lines = [f"{user}: {(one.question or self.question).replace('{keypoint}', one.query.name)}\n"]
        if self.describe and one.query.description:
            lines.append(f"{reference}: {one.query.description}\n")
        lines.append(f"{assistant}:")
        text = "".join(lines)
        if one.answer is None:
            return text, None
        answer = f" {one.answer}{self.end}" if one.answer else self.end
        return text + answer, (len(text), len(text) + len(answer))

    def render(self, rounds: Sequence[Round]) -> tuple[str, list[tuple[int, int]]]:
        """The text behind the image, and the places (start, end) of the answers in it."""
        text, spans = f"\n{self._preface(rounds)}", []
        for one in rounds:
            piece, span = self.round(one)
            if span is not None:
                spans.append((len(text) + span[0], len(text) + span[1]))
            text += piece
        return text, spans

    def _preface(self, rounds: Sequence[Round]) -> str:
        """What stands before the first round: lines, or nothing."""
        lines = []
        if self.outline:
            lines.append(OUTLINE.format(*(role.lower() for role in self.roles)))
        listed = rounds[-1].query.listed if rounds and self.list_keypoints else ()
        if listed:
            lines.append(f"The keypoints of this object are: {'; '.join(listed)}.")
        return "".join(f"{line}\n" for line in lines)

    def prompt(self, query: Query, history: Sequence[Round] = ()) -> str:
        """The text behind which the model answers ``query``: it ends with ``Assistant:`` and no space."""
        return self.render([*history, Round(query)])[0]


@dataclass(frozen=True)
class Encoded:
    """Token ids of a text and, for each, its id where it is learnt and -100 elsewhere."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def behind_image(self, begin: int, placeholder: int, tokens: int) -> Encoded:
        """With the begin token and the image's placeholders before the text; neither is learnt."""
        head = (begin, *[placeholder] * tokens)
        return replace(self, ids=head + self.ids, labels=(IGNORED_LABEL,) * len(head) + self.labels)


def encode(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]] = ()) -> Encoded:
    """Tokenise a text; tokens that lie in one of the ``spans`` (start, end) are learnt.

    A token that reaches beyond a span, into the next round's role, belongs to the prompt. ``tokenizer``: a fast one
    of transformers, which knows where in the text its tokens stand.
    """
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, labels, place = found["input_ids"], [], 0
    for token, (start, end) in zip(ids, found["offset_mapping"], strict=True):
        while place < len(spans) and start >= spans[place][1] > spans[place][0]:
            place += 1
        learnt = place < len(spans) and spans[place][0] <= start and end <= spans[place][1]
        labels.append(token if learnt else IGNORED_LABEL)
    return Encoded(tuple(ids), tuple(labels))


def group(order: Sequence[int], k: int, generator: random.Random) -> list[list[int]]:
    """Cut shuffled indices into groups of ``k``; a short last one is filled with indices of the others.

    All indices occur; no group holds one twice. Fewer than ``k`` indices make one short group.
    """
    if k < 1:
        raise ValueError(f"expected at least one round per conversation, found k = {k}")
    groups = [list(order[start : start + k]) for start in range(0, len(order), k)]
    if len(groups) > 1 and len(groups[-1]) < k:
        others = [index for one in groups[:-1] for index in one]
        groups[-1] += generator.sample(others, k - len(groups[-1]))
    return groups
