"""The training stages: what each of them may look at."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from talking_points.config import ConfigError
from talking_points.sources import open_source
from talking_points.training.config import TrainConfig, VisionConfig
from talking_points.training.stages import pretrained_vision, vision_records


def test_the_vision_path_never_sees_held_out_pictures(drawn: dict[str, Path]) -> None:
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
    assert not pretrained_vision(config)["reused"]
    (tmp_path / "not-built" / "data").mkdir(parents=True)
    (tmp_path / "not-built" / "data" / "train-00000-of-00001.parquet").write_bytes(b"now it is")
    assert pretrained_vision(config)["reused"]
    shared = config.model_copy(update={"vision": vision.model_copy(update={"separate": False})})
    with pytest.raises(ConfigError):
        pretrained_vision(shared, "other")
