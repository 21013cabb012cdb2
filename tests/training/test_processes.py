"""Several processes train one model, and it is the model that one process would have trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from talking_points.errors import TrainingStoppedError
from talking_points.examples.config import FeatureConfig
from talking_points.training.config import LocalizerConfig, StageConfig, TrainConfig
from talking_points.training.launcher import launch
from tasks import train
from tests.training.conftest import write_dataset

SHORT = {"batch_size": 3, "max_steps": 4, "learning_rate": 3e-3, "save_steps": 2, "eval_steps": 2, "log_steps": 1}


def settings(folder: Path, output: str, **fields: Any) -> TrainConfig:
    """Both stages on 24 points, with their features in a folder of the output's own."""
    if not (folder / "dataset").exists():
        data = write_dataset(folder / "dataset", rows=24) / "data"
        shutil.copy(data / "train-00000-of-00001.parquet", data / "test-00000-of-00001.parquet")
    return TrainConfig(
        output=folder / output,
        dataset=str(folder / "dataset"),
        image_size=64,
        vocabulary_size=300,
        threads=1,
        features=FeatureConfig(folder=folder / output / "features", limit_gb=1.0),
        localizer=LocalizerConfig(**SHORT, **fields),
        descriptor=StageConfig(**SHORT, **fields),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "checkpointing"), [("localizer", True), ("descriptor", False)])
def test_two_processes_train_what_one_trains_with_twice_the_batches(
    kind: str, checkpointing: bool, tmp_path: Path
) -> None:
    stage = {"localizer": train.localizer, "descriptor": train.descriptor}[kind]
    alone = stage.fn(settings(tmp_path, "alone", accumulation=2))
    config = settings(tmp_path, "together", processes=2, gradient_checkpointing=checkpointing)
    together = stage.fn(config)
    assert not together["reused"]
    assert stage.fn(config)["reused"]
    one, two = (load_file(Path(result["path"], "model.safetensors")) for result in (alone, together))
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-3, atol=1e-4), name
    # Both processes leave what a run of two needs to be resumed, and each image's features once.
    checkpoint = max(Path(together["path"]).glob("checkpoint-*"))
    assert {"complete.json", "rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}
    stored = [len(list((tmp_path / name / "features").rglob("*.safetensors"))) for name in ("alone", "together")]
    assert stored[0] == stored[1] > 0


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    config = settings(tmp_path, "train", processes=2)
    (tmp_path / "train" / "localizer").mkdir(parents=True)
    (tmp_path / "train" / "localizer" / "started.json").write_text(json.dumps({"seed": 7}))
    with pytest.raises(TrainingStoppedError, match=r"run again(.|\n)*holds a stage of another configuration"):
        launch("localizer", config, "localizer", 2)
