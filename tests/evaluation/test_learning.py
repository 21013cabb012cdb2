"""The few figures that decide whether learning works."""

from __future__ import annotations

from typing import Any

import pytest

from talking_points.evaluation.learning import adaptation_figures

START = {"judge_a": 60.0, "judge_b": 50.0, "true_words": 70.0}


@pytest.mark.parametrize(
    ("after", "mean", "sd"),
    [([63.0], 63.0, None), ([62.0, 64.0], 63.0, 2**0.5), ([61.0, 62.0, 63.0], 62.0, 1.0), ([58.0, 58.0], 58.0, 0.0)],
)
def test_seeds_are_averaged(after: list[float], mean: float, sd: float | None) -> None:
    figures = adaptation_figures(START, [START | {"judge_a": score} for score in after])
    assert set(figures) == {"reward_judge", "independent_judge", "true_words"}
    assert figures["reward_judge"] == {"before": 60.0, "after": mean, "sd": pytest.approx(sd)}
    assert figures["independent_judge"]["after"] == figures["independent_judge"]["before"] == 50.0


def test_a_quick_run_has_no_independent_judge() -> None:
    start: dict[str, Any] = {name: value for name, value in START.items() if name != "judge_b"}
    assert set(adaptation_figures(start, [start])) == {"reward_judge", "true_words"}
