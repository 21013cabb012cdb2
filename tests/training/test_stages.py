"""The training stages: what each of them may look at, and what they refuse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from talking_points.config import ConfigError
from talking_points.examples.bare_points import load_bare_points
from talking_points.examples.config import FeatureConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.sources import open_source
from talking_points.training.config import AdaptConfig, LocalizerConfig, TrainConfig, TransferConfig, VisionConfig
from talking_points.training.stages import (
    run_stage,
)
from talking_points.training.vision_records import vision_records
from tests.training.conftest import small, write_dataset


def test_the_vision_path_never_sees_held_out_images(drawn: dict[str, Path]) -> None:
    sources = {name: drawn[name] for name in ("pascal_part116", "partimagenet")}
    everything = {record.image_path for name, root in sources.items() for record in open_source(name, root)}
    first = min(everything)
    config = VisionConfig(sources=sources, images=100)
    assert {record.image_path for record in vision_records(config, [])} == everything
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    assert {record.image_path for record in vision_records(config, [digest])} == everything - {first}
    # The bound counts what is left, for each source.
    assert len(list(vision_records(config.model_copy(update={"images": 2}), [digest]))) == 4


def test_a_separate_vision_path_needs_no_dataset(drawn: dict[str, Path], tmp_path: Path) -> None:
    vision = VisionConfig(
        steps=1, backbone_steps=1, batch_size=2, sources={"partimagenet": drawn["partimagenet"]}, separate=True
    )
    config = TrainConfig(output=tmp_path / "train", dataset=str(tmp_path / "not-built"), image_size=64, vision=vision)
    assert not run_stage("vision", config)["reused"]
    (tmp_path / "not-built" / "data").mkdir(parents=True)
    (tmp_path / "not-built" / "data" / "train-00000-of-00001.parquet").write_bytes(b"now it is")
    assert run_stage("vision", config)["reused"]
    shared = config.model_copy(update={"vision": vision.model_copy(update={"separate": False})})
    with pytest.raises(ConfigError):
        run_stage("vision", shared, "other")


def test_a_validation_share_takes_the_metric_from_the_training_split(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", rows=12)  # six images, and no test split
    stage = {"max_steps": 2, "batch_size": 4, "eval_steps": 1, "save_steps": 2}
    config = TrainConfig(
        output=tmp_path / "train",
        dataset=str(tmp_path / "dataset"),
        image_size=64,
        vocabulary_size=300,
        features=FeatureConfig(folder=tmp_path / "features", limit_gb=1.0),
        localizer=LocalizerConfig(**stage, patience=3, validation=0.34),
    )
    metrics = run_stage("localizer", config)["metrics"]
    assert 0 <= metrics["eval_metric"] <= 100
    assert metrics["epoch"] == 1.0  # two batches are the eight points of the four images that are left
    with pytest.raises(ConfigError, match="split 'test'"):
        run_stage("localizer", config.model_copy(update={"localizer": LocalizerConfig(**stage)}), "other")


@pytest.fixture
def adaptation(drawn: dict[str, Path], tmp_path: Path) -> TrainConfig:
    for kind, name in ((PointDescriptor, "descriptor"), (PointLocalizer, "localizer")):
        small(kind).save_pretrained(tmp_path / "train" / name)
    return TrainConfig(
        output=tmp_path / "train",
        dataset="unused",
        features=FeatureConfig(folder=tmp_path / "features", limit_gb=1.0),
        adapt=AdaptConfig(max_steps=1, batch_size=2, group=2, max_new_tokens=4, last_blocks=1, eval_points=2),
        keypoints=TransferConfig(root=drawn["ap10k"]),
    )


def test_adaptation_is_measured_on_images_that_it_holds_out(adaptation: TrainConfig) -> None:
    assert "eval_metric" not in run_stage("adapted", adaptation)["metrics"]
    measured = adaptation.model_copy(update={"adapt": adaptation.adapt.model_copy(update={"validation": 0.5})})
    assert 0 <= run_stage("adapted", measured, "measured")["metrics"]["eval_metric"] <= 100
    rows = [json.loads(line) for line in (adaptation.output / "measured" / "samples.jsonl").read_text().splitlines()]
    train, held_out = load_bare_points(adaptation.keypoints).hold_out(0.5)
    sampled = {row["id"] for row in rows}
    assert sampled <= {example.id for example in train.examples}
    assert not sampled & {example.id for example in held_out.examples}


@pytest.mark.parametrize("kind", [PointDescriptor, PointLocalizer])
def test_adaptation_refuses_a_tokenizer_of_another_model(kind: Any, adaptation: TrainConfig) -> None:
    model = small(kind)
    model.config.seg_token_id += 1
    model.save_pretrained(adaptation.output / ("descriptor" if kind is PointDescriptor else "localizer"))
    with pytest.raises(ConfigError, match="SEG"):
        run_stage("adapted", adaptation)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("vision", "vision.backbone_bf16"),
        ("localizer", "localizer.bf16"),
        ("descriptor", "descriptor.bf16"),
        ("adapted", "adapt.bf16"),
    ],
)
def test_bfloat16_is_refused_on_a_gpu_without_it_before_anything_is_made(
    kind: str, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, field = setting.split(".")
    values = {"output": tmp_path / "train", "dataset": str(tmp_path / "no-dataset"), section: {field: True}}
    config = TrainConfig.model_validate(values)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(ConfigError, match=rf"Tesla V100 .* set {setting}=false"):
        run_stage(kind, config)
    assert not (tmp_path / "train").exists()
