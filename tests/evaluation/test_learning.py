"""The few figures that decide whether learning works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from talking_points.evaluation import learning
from talking_points.evaluation.controls import control_predictions
from talking_points.evaluation.learning import Judges, adaptation_figures, descriptor_figures
from talking_points.evaluation.reports import evaluate_predictions
from talking_points.examples.config import FeatureConfig
from talking_points.examples.inference import localize_points
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from tests.training.conftest import points, small

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


def test_a_descriptor_is_set_against_its_own_controls_each_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, blind = (small(PointLocalizer, seed) for seed in (1, 2, 3))
    assert isinstance(a, PointLocalizer)
    assert isinstance(b, PointLocalizer)
    assert isinstance(blind, PointLocalizer)
    descriptor = small(PointDescriptor)
    descriptor.save_pretrained(tmp_path / "descriptor")
    data, features = points(3, 2), FeatureConfig(folder=tmp_path / "features", limit_gb=1.0)
    judges = Judges(a, b, features, blind)
    truth = judges.reports("ground_truth", data)
    assert truth["judge_b"].controls == {}
    assert judges.mpck(data) == {judge: report.mpck for judge, report in truth.items()}
    expected = control_predictions(data, a, features, blind)
    alone = evaluate_predictions("x", data, localize_points(a, data, features), controls=expected)
    assert (truth["judge_a"].controls, truth["judge_a"].above_text_only) == (alone.controls, alone.above_text_only)

    taken = []

    def counted(*given: Any) -> dict[str, Any]:
        taken.append(given)
        return control_predictions(*given)

    monkeypatch.setattr(learning, "control_predictions", counted)
    perfect = evaluate_predictions("x", data, data.keypoints)
    found = descriptor_figures(data, tmp_path / "descriptor", judges, dict.fromkeys(truth, perfect))
    assert len(taken) == 1
    assert set(found["controls"]) == {"centre", "uniform", "shuffled_images", "text_only"}
    assert found["above_text_only"]["difference"] == pytest.approx(
        found["mpck"]["judge_a"] - found["controls"]["text_only"]
    )
    assert found["ratio"] == {judge: value / 100 for judge, value in found["mpck"].items()}
    assert set(found["mpck"]) == {"judge_a", "judge_b"}


def test_judges_without_a_control_report_none(tmp_path: Path) -> None:
    a = small(PointLocalizer, 1)
    assert isinstance(a, PointLocalizer)
    reports = Judges(a, None, FeatureConfig(folder=tmp_path, limit_gb=1.0)).reports("ground_truth", points(2, 2))
    assert [(name, report.controls, report.above_text_only) for name, report in reports.items()] == [
        ("judge_a", {}, None)
    ]
