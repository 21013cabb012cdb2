"""Rewards for descriptions: how well a frozen localizer finds the point again (paper, section 3.4).

A reward is a function of a ``Rewarded`` batch that gives one number per description, higher is better. ``REWARDS``
names those that a configuration may choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from talking_points.examples.points import Floats, PointExample
from talking_points.examples.words import Facts, claims_true

FALSE_WORDS_WEIGHT = 0.02
"""What a description loses when every place it states is false, in units of squared normalised distance: as much as
a miss by 0.2 of the image. Rewards of one group differ by a few thousandths, one false level costs more than that."""


@dataclass(frozen=True)
class Rewarded:
    """N sampled descriptions. predicted, truth: (N, 2) in normalised coordinates; facts: annotations of the points."""

    predicted: Floats
    truth: Floats
    descriptions: Sequence[str]
    facts: Sequence[Facts]

    @classmethod
    def of(cls, examples: Sequence[PointExample], predicted: Floats) -> Rewarded:
        """Of points with their texts, and of where those were found: ``predicted`` (N, 2) in pixels."""
        sizes = np.array([example.size for example in examples], dtype=np.float64)
        return cls(
            predicted=predicted / sizes,
            truth=np.array([example.keypoint for example in examples]) / sizes,
            descriptions=[example.text for example in examples],
            facts=[example.facts for example in examples],
        )


def neg_mse(batch: Rewarded) -> Floats:
    """Equation 2: minus the mean squared error over both coordinates. The paper's reward."""
    return -((batch.predicted - batch.truth) ** 2).mean(axis=1)


def neg_distance(batch: Rewarded) -> Floats:
    """Minus the distance. Far misses count less than squared, near ones more."""
    return -np.sqrt(((batch.predicted - batch.truth) ** 2).sum(axis=1))


def mean_pck(batch: Rewarded) -> Floats:
    """The metric itself: the share of the thresholds 0.1 and 0.2 that the distance is below. Most groups are equal."""
    distance = -neg_distance(batch)
    return (distance[:, None] < np.array([0.1, 0.2])).mean(axis=1)


def neg_mse_true_words(batch: Rewarded) -> Floats:
    """``neg_mse`` less ``FALSE_WORDS_WEIGHT`` times the share of places that contradict the annotation or are missing.

    With ``neg_mse`` alone false words that push this one localizer the right way are rewarded; here they are not.
    """
    true = [claims_true(text, facts) for text, facts in zip(batch.descriptions, batch.facts, strict=True)]
    false_share = np.array([1 - np.mean(judged) for judged in true])
    return neg_mse(batch) - FALSE_WORDS_WEIGHT * false_share


REWARDS: dict[str, Callable[[Rewarded], Floats]] = {
    "neg_mse": neg_mse,
    "neg_distance": neg_distance,
    "mean_pck": mean_pck,
    "neg_mse_true_words": neg_mse_true_words,
}
