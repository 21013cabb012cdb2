"""A segmenter's card holds what its evaluation found, and goes to the Hub with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from talking_points.models.presets import train_tokenizer
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_presets import add_lattice, segmenter_config
from talking_points.publishing.model_card import render_model_card
from talking_points.publishing.model_release import prepare_model
from talking_points.publishing.release import ReleaseError
from tests.publishing.hub_card import card_problems


def report(**changes: Any) -> dict[str, Any]:
    res = {
        "ciou": 51.26, "giou": 49.04, "precision@0.5": 55.0, "intervals": {"ciou": [48.0, 54.0], "giou": [46.0, 52.1]},
    }  # fmt: skip
    split = {
        "samples": 1400, "res": res, "rec": {"accuracy@0.5": 61.0}, "boundary_f": 33.3, "form": {"well_formed": 99.5},
        "ways": {"model": {"giou": 49.04}, "exchanged images": {"giou": 21.0}},
    }  # fmt: skip
    return {"splits": {"test": split | changes}}


def test_figures_and_metadata() -> None:
    text = render_model_card(
        "segmenter-tiny", "segmenter", reports=[report()], config={"output": "/home/someone/out", "seed": 1},
        dataset="org/instructions", base_model="random weights", repo="org/segmenter", free=True,
    )  # fmt: skip
    assert card_problems(text) == []
    assert 'Segmenter.from_pretrained("org/segmenter")' in text
    assert "| test | 1,400 | 51.3 (48.0 to 54.0) | 49.0 (46.0 to 52.1) | 55.0 | 61.0 | 33.3 | 99.5 |" in text
    assert "exchanged images 21.0." in text
    assert "/home/someone" not in text
    data = ModelCard(text).data.to_dict()
    assert (data["pipeline_tag"], data["license"]) == ("image-segmentation", "apache-2.0")
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"]: metric["value"] for metric in metrics} == {"cIoU": 51.26, "gIoU": 49.04}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"mpck": 3}, "evaluate-segmentation"),
        ({"splits": {}}, "evaluate-segmentation"),
        ({"splits": {"test": 1}}, "evaluate-segmentation"),
        (report(samples="many"), "evaluate-segmentation"),
        ([], "evaluate-segmentation"),
    ],
)
def test_other_reports_are_refused_and_a_model_goes_up_whole(tmp_path: Path, content: Any, named: str) -> None:
    tokenizer = train_tokenizer(["the dog"], 400)
    add_lattice(tokenizer, 16)
    model = Segmenter(segmenter_config(tokenizer, 64, 2, 16))
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path / "model")
    for name, written in (("good", report()), ("bad", content)):
        (tmp_path / f"{name}.json").write_text(json.dumps(written))
    with pytest.raises(ReleaseError, match=named):
        prepare_model(tmp_path / "model", "org/segmenter", [tmp_path / "bad.json"])
    release = prepare_model(tmp_path / "model", "org/segmenter", [tmp_path / "good.json"])
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(release.files)
    assert "| test | 1,400 |" in release.card
