"""A tiny Qwen2.5-VL adapted to outlines: labels, adapters alone on the disk, refined with the same machinery."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig, check_segmentation
from talking_points.examples.regions import load_regions
from talking_points.models.image_text import ImageTextSegmenter
from talking_points.models.segmenting import open_segmenter
from talking_points.training.image_text_adapters import ImageTextPolicy, RegionImages
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.stages import run_stage
from tests.models.test_image_text import images, tiny_qwen
from tests.training.small_instructions import write_instructions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("adapted")
    write_instructions(found, 1, ("train",))
    tiny_qwen(found / "base")
    return found


@pytest.fixture(scope="module")
def config(folder: Path) -> SegmenterConfig:
    return SegmenterConfig.model_validate(
        {
            "output": folder / "train", "preset": "image_text", "start": str(folder / "base"), "lora_rank": 4,
            "instructions": {"root": folder / "instructions"}, "threads": 1,
            "segmenter": {"max_steps": 2, "batch_size": 2, "save_steps": 1, "eval_steps": 9, "learning_rate": 1e-2},
            "refine": {
                "kinds": [], "batch_size": 2, "group": 2, "updates": 2, "max_steps": 2, "save_steps": 2, "log_steps": 1,
                "max_new_tokens": 6, "learning_rate": 1e-2, "beta": 0.1,
            },
        }
    )  # fmt: skip


def test_the_loss_is_over_the_answer_and_its_end(folder: Path) -> None:
    own = ImageTextSegmenter.from_pretrained(folder / "base")
    answers = ["[[0.100, 0.200]]", "the dog"]
    inputs = own.encode_answered(images(), ["what?", "and a much longer question?"], answers)
    for row, answer in zip(inputs["labels"], answers, strict=True):
        kept = row[row != -100]
        assert own.processor.tokenizer.decode(kept) == f"{answer}<|im_end|>"


def test_adapters_are_trained_refined_and_opened_again(config: SegmenterConfig, folder: Path) -> None:
    run_stage("segmenter", config)
    refined = run_stage("refined", config)
    for stage in ("segmenter", "refined"):
        kept = {path.name for path in (folder / "train" / stage).iterdir()}
        assert {"adapter_model.safetensors", "segmenter.json", "stage.json"} <= kept
        assert "model.safetensors" not in kept
        settings = json.loads((folder / "train" / stage / "segmenter.json").read_text())
        assert settings["base"] == str(folder / "base")
    assert abs(refined["metrics"]["ratio"] - 1) < 0.2
    assert run_stage("refined", config)["reused"]
    place = str(folder / "train" / "refined")
    check_segmentation(
        EvaluateSegmentationConfig(output=folder / "e", model=place, instructions=folder / "instructions")
    )
    model = open_segmenter(place)
    assert len(model.answer(images()[:1], ["the dog"], max_new_tokens=3)) == 1


def test_stored_tokens_are_as_likely_as_when_they_were_written(folder: Path) -> None:
    own = ImageTextSegmenter.from_pretrained(folder / "base")
    own.add_lora(4)
    regions = load_regions(folder / "instructions", "train")
    policy = ImageTextPolicy(own, RegionImages(regions, 1e9), "rows", 1.0, 5, reference=True)
    torch.manual_seed(0)
    samples = policy.sample(regions.examples[:2], 2)
    scores = policy.log_probs(samples)
    assert scores.shape == samples.mask.shape
    torch.testing.assert_close(policy.reference(samples), scores.detach(), atol=1e-5, rtol=1e-5)
    for number in range(2):
        alone = policy.log_probs(samples.part(slice(number, number + 1)))
        here = scores[2 * number : 2 * number + 2, : alone.shape[1]]
        torch.testing.assert_close(here, alone, atol=1e-4, rtol=1e-4)
