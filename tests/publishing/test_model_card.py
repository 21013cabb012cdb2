"""Model cards say what the evaluation reports hold, in a form that the Hub accepts."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from talking_points.publishing.model_card import render_model_card
from tests.publishing.hub_card import card_problems


def report(name: str = "ground truth", **changes: Any) -> dict[str, Any]:
    """An evaluation report as plain values, without its predictions."""
    scores = {"points": 40, "mpck": 78.83, "0.05": 30.0, "0.1": 65.6, "0.2": 92.05}
    return {
        "name": name,
        "definition": {
            "name": "talking_points", "thresholds": [0.05, 0.1, 0.2], "mean_over": [0.1, 0.2], "normalizer": "image_wh",
        },
        "dataset": "/home/someone/dataset",
        "points": 4000,
        "mpck": 78.83,
        "interval": {"low": 77.0, "high": 80.1},
        "pck": {"0.05": 30.0, "0.1": 65.6, "0.2": 92.05},
        "inside_part": None,
        "controls": {"centre": 12.0, "text_only": 41.5},
        "above_text_only": {"difference": 37.3, "interval": {"low": 35.2, "high": 39.4}, "p_value": 0.001},
        "sources": {"partimagenet": scores, "ade20k_part234": scores},
    } | changes  # fmt: skip


def test_scores_and_metadata() -> None:
    text = render_model_card(
        "point-localizer",
        "localizer",
        reports=[report(), report("our descriptor", mpck=None)],
        config={"output": "/home/someone/out", "localizer": {"learning_rate": 0.0002}},
        dataset="org/name",
        dataset_revision="build-1",
        base_model="org/base",
        curves=True,
        repo="org/localizer",
    )
    assert card_problems(text) == []
    assert 'PointLocalizer.from_pretrained("org/localizer")' in text
    assert "| ground truth | 4,000 | 78.8 | 77.0 to 80.1 | 30.0 | 65.6 | 92.0 | - |" in text
    assert "| our descriptor | 4,000 | - |" in text
    assert "text only 41.5" in text
    assert "37.3 points (35.2 to 39.4)." in text
    assert "| partimagenet | 40 | 78.8 | 30.0 | 65.6 | 92.0 |\n| ade20k_part234 | 40 |" in text
    assert "learning_rate: 0.0002" in text
    assert "](curves.png)\n\n## Evaluation" in text
    assert "/home/someone" not in text
    data = ModelCard(text).data.to_dict()
    assert (data["pipeline_tag"], data["datasets"], data["base_model"]) == (
        "keypoint-detection", ["org/name"], ["org/base"],
    )  # fmt: skip
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert [(metric["type"], metric["value"]) for metric in metrics][:2] == [("mPCK", 78.83), ("PCK@0.05", 30.0)]


def test_a_model_without_reports() -> None:
    text = render_model_card("point-descriptor", "descriptor")
    assert "PointDescriptor" in text
    assert "Not evaluated yet" in text
    assert "curves.png" not in text
    assert card_problems(text) == []
    assert "None" not in text
    assert ModelCard(text).data.to_dict()["license"] == "other"


def test_scores_of_different_metrics_stand_in_no_table() -> None:
    other = report(definition=report()["definition"] | {"name": "mp100", "normalizer": "bbox_max_side"})
    with pytest.raises(ValueError, match="mp100, talking_points"):
        render_model_card("m", "localizer", reports=[report(), other])
