"""Several processes train one model, and it is the model that one process would have trained."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from talking_points.errors import TrainingStoppedError
from talking_points.examples.config import FeatureConfig
from talking_points.training.config import LocalizerConfig, StageConfig, TrainConfig
from talking_points.training.launcher import launch
from talking_points.training.sampled import SampledTrainer
from talking_points.training.stages import run_stage
from tasks import train
from tests.flows.serving import REPOSITORY
from tests.training.conftest import write_dataset
from tests.training.shared_runs import run_both
from tests.training.small_instructions import write_instructions
from tests.training.test_segmenter import settings as segmenter_settings

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


@pytest.mark.slow
def test_reinforcement_in_two_processes_has_the_losses_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_instructions(tmp_path, 2)
    run_stage("segmenter", segmenter_settings(tmp_path))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "-m", "tests.training.shared_runs", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # Alone, with answers drawn in two shares as well.
    monkeypatch.setattr(SampledTrainer, "shares", 2)
    run_both(tmp_path, "alone")

    for stage, step in (("adapted", 3), ("refined", 4)):
        one, two = (tmp_path / output / stage for output in ("alone", "together"))
        told = [
            [json.loads(line) for line in (place / "samples.jsonl").read_text().splitlines()] for place in (one, two)
        ]
        assert [row["text"] for row in told[0]] == [row["text"] for row in told[1]]
        assert [row["reward"] for row in told[0]] == pytest.approx([row["reward"] for row in told[1]], abs=1e-5)
        logs = [json.loads((place / f"checkpoint-{step}" / "trainer_state.json").read_text()) for place in (one, two)]
        entries = [[entry for entry in log["log_history"] if "loss" in entry] for log in logs]
        assert len(entries[0]) == step
        assert any(abs(entry["loss"]) > 1e-4 for entry in entries[0])
        for alone, together in zip(*entries, strict=True):
            assert alone.keys() == together.keys()
            for name, value in alone.items():
                assert together[name] == pytest.approx(value, abs=1e-5, rel=1e-5), (stage, alone["step"], name)
        weights = [load_file(place / "model.safetensors") for place in (one, two)]
        for name, value in weights[0].items():
            assert torch.allclose(weights[1][name], value, rtol=1e-4, atol=1e-4), name
