"""Constrained decoding of outlines: a model whose coordinates are tokens of their own writes nothing but an outline."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from talking_points.grounding.lattice import lattice_numbers

LATTICE_FORMS = ("{}, ", "], [{}, ", "{}")
"""Tokens of one number: the x of an outline's first point (and a box's corner), the x of a further one, and a y."""

OPEN, CLOSE, PART = "[[[", "]]]", "]], [["
"""Tokens that begin an answer, end it, and part two outlines."""

FEWEST_POINTS = 3
SHORTEST = 2 * FEWEST_POINTS + 3
"""Tokens of the shortest answer: its points between what begins and ends it, and the end of the turn."""

_OTHER, _OPEN, _FIRST, _FURTHER, _Y, _PART, _CLOSE, _END = range(8)
"""What a token is in an outline."""


class OutlineDecoding(LogitsProcessor):
    """Lets a batch of answers be well-formed outlines alone: of three points and an area, and closed before the limit.

    It remembers what every answer has drawn, so one serves one call of ``generate`` with embeddings as prompts, whose
    ``input_ids`` (N, t) are the t tokens written so far. Raises ``ValueError`` for a tokenizer without the tokens of
    the lattice, and for a limit that no outline fits in.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, lattice: int, end: int | list[int], vocabulary: int, limit: int
    ) -> None:
        if limit < SHORTEST:
            raise ValueError(f"expected at least {SHORTEST} new tokens, which the shortest outline has; found {limit}")
        self.limit, self.steps = limit, torch.arange(lattice + 1)
        self.kinds, self.numbers = torch.full((vocabulary,), _OTHER), torch.full((vocabulary,), -1)
        numbers = lattice_numbers(lattice)
        for kind, form in zip((_FIRST, _FURTHER, _Y), LATTICE_FORMS, strict=True):
            ids = _ids(tokenizer, [form.format(number) for number in numbers])
            self.kinds[ids], self.numbers[ids] = kind, self.steps
        self.kinds[_ids(tokenizer, [OPEN, PART, CLOSE])] = torch.tensor([_OPEN, _PART, _CLOSE])
        self.kinds[end] = _END

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (N, V) with -inf for every token that cannot follow."""
        written = input_ids.cpu()
        if written.shape[1] == 0:
            self._begin(len(written))
            kinds = torch.zeros(len(written), 8, dtype=torch.bool)
            kinds[:, _OPEN] = True
            never = torch.zeros(len(written), len(self.steps) + 1, dtype=torch.bool)
        else:
            self._read(written[:, -1])
            kinds, never = self._following(self.limit - written.shape[1]), self._flat()
        allowed = kinds[:, self.kinds] & ~never[:, self.numbers]
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def _begin(self, count: int) -> None:
        """Nothing is drawn. points (N,) of the outline at hand; its first and last one, and the x of the next, in steps
        of the lattice; area (N,): twice what it encloses."""
        self.points, self.area, self.x = torch.zeros(3, count, dtype=torch.long)
        self.first, self.last = torch.zeros(2, count, 2, dtype=torch.long)
        self.kind = torch.full((count,), _OTHER)

    def _read(self, token: Tensor) -> None:
        """What the last token (N,) of each answer has added."""
        self.kind, number = self.kinds[token], self.numbers[token]
        begun, drawn = (self.kind == _OPEN) | (self.kind == _PART), self.kind == _Y
        self.points, self.area = self.points.masked_fill(begun, 0), self.area.masked_fill(begun, 0)
        self.x = torch.where((self.kind == _FIRST) | (self.kind == _FURTHER), number, self.x)
        point = torch.stack((self.x, number), 1)
        self.first = torch.where((drawn & (self.points == 0))[:, None], point, self.first)
        (across, down), to = (self.last - self.first).unbind(1), point - self.first
        self.area = self.area + drawn * (across * to[:, 1] - down * to[:, 0])
        self.last = torch.where(drawn[:, None], point, self.last)
        self.points = self.points + drawn

    def _following(self, left: int) -> Tensor:
        """(N, 8), whether a token of each kind may follow, with so many tokens left."""
        kind, whole = self.kind, self.points >= FEWEST_POINTS
        allowed = torch.zeros(len(kind), 8, dtype=torch.bool)
        allowed[:, _FIRST] = (kind == _OPEN) | (kind == _PART)
        allowed[:, _Y] = (kind == _FIRST) | (kind == _FURTHER)
        # A point is two tokens, the end of an answer two more.
        allowed[:, _FURTHER] = (kind == _Y) & (~whole | (left >= 4))
        allowed[:, _PART] = (kind == _Y) & whole & (left >= SHORTEST)
        allowed[:, _CLOSE] = (kind == _Y) & whole
        allowed[:, _END] = (kind == _CLOSE) | (kind == _END) | (kind == _OTHER)
        return allowed

    def _flat(self) -> Tensor:
        """(N, steps + 1), which number may not follow; the last column is for tokens that are none.

        A point may not repeat the one before, and from the third one on the outline has an area.
        """
        (across, down), steps = (self.last - self.first).unbind(1), self.steps
        third, ordinate = (self.points >= 2)[:, None], (self.kind == _FURTHER)[:, None]
        beside = (steps - self.first[:, :1]) * -down[:, None]  # what an x adds to the area where its y adds nothing
        no_area = third & (across == 0)[:, None] & (down != 0)[:, None] & (self.area[:, None] + beside == 0)
        above = across[:, None] * (steps - self.first[:, 1:]) - (down * (self.x - self.first[:, 0]))[:, None]
        flat = third & (self.area[:, None] + above == 0)
        repeated = (steps == self.last[:, 1:]) & (self.x == self.last[:, 0])[:, None]
        never = torch.where(ordinate, flat | repeated, (self.kind == _Y)[:, None] & no_area)
        return torch.cat((never, torch.zeros(len(never), 1, dtype=torch.bool)), 1)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    found = tokenizer.convert_tokens_to_ids(texts)
    if None in found or tokenizer.unk_token_id in found:
        raise ValueError(f"expected a token for each of {texts[0]!r} to {texts[-1]!r}, found none for some")
    return torch.tensor(found)
