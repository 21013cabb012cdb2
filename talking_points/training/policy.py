"""What reinforcement asks of a model: answers drawn from it, and how likely they are."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from talking_points.examples.features import ImageFeatures
from talking_points.examples.regions import RegionExample, RegionSet
from talking_points.models.segmenter import Segmenter, Written
from talking_points.training.segmenter import question_of


@dataclass(frozen=True)
class Answers:
    """S = P * G sampled answers to the questions of P examples, G of each in a row.

    tokens, mask: (S, T), the end of the turn included; texts: (S,).
    """

    examples: Sequence[Any]
    group: int
    written: Written

    @property
    def tokens(self) -> Tensor:
        return self.written.tokens

    @property
    def mask(self) -> Tensor:
        return self.written.mask

    @property
    def texts(self) -> Sequence[str]:
        return self.written.texts

    def part(self, questions: slice) -> Answers:
        """The answers to some of the questions."""
        rows = slice(questions.start * self.group, questions.stop * self.group)
        w = self.written
        longest = max([1, *w.mask[rows].sum(1).tolist()])
        written = Written(w.tokens[rows, :longest], w.mask[rows, :longest], w.texts[rows], w.finished[rows])
        return replace(self, examples=self.examples[questions], written=written)


class Policy(Protocol):
    """A model in reinforcement."""

    def sample(self, examples: Sequence[Any], group: int) -> Answers:
        """``group`` answers to each question from the whole distribution, without gradients."""

    def log_probs(self, samples: Answers) -> Tensor:
        """Log-probabilities (S, T) of the sampled tokens, with gradients."""

    def reference(self, samples: Answers) -> Tensor:
        """The same under the policy before reinforcement, without gradients."""


class SegmenterPolicy:
    """A segmenter over kept image features. The reference is a copy of its weights, made when it is first needed."""

    def __init__(
        self,
        model: Segmenter,
        features: ImageFeatures[RegionSet],
        phrasing: str,
        temperature: float,
        max_new_tokens: int | None,
        reference: bool,
    ) -> None:
        self.model, self.features, self.phrasing = model, features, phrasing
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self._before = _frozen_copy(model) if reference else None

    def sample(self, examples: Sequence[RegionExample], group: int) -> Answers:
        features, index = self.features.of_images(examples)
        written = self.model.write(
            features, index, self._questions(examples), group=group, temperature=self.temperature,
            max_new_tokens=self.max_new_tokens, batch_size=512,
        )  # fmt: skip
        return Answers(examples, group, written)

    def log_probs(self, samples: Answers) -> Tensor:
        return self._score(self.model, samples)

    @torch.no_grad()
    def reference(self, samples: Answers) -> Tensor:
        assert self._before is not None
        return self._score(self._before, samples)

    def _score(self, model: Segmenter, samples: Answers) -> Tensor:
        features, index = self.features.of_images(samples.examples)
        questions = self._questions(samples.examples)
        return model.log_probs(features, index, questions, samples.written, samples.group, self.temperature)

    def _questions(self, examples: Sequence[RegionExample]) -> list[str]:
        return [question_of(self.model, one, self.phrasing) for one in examples]


def _frozen_copy(model: Segmenter) -> Segmenter:
    """The language path with weights of its own; the vision path, which stays as it is, is shared."""
    vision, known = model.vision, {id(model.vision): model.vision}
    copied: Segmenter = deepcopy(model, known)
    assert copied.vision is vision
    return copied.eval().requires_grad_(False)
