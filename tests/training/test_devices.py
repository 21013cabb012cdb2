"""Models on a GPU, features and words on the CPU: everything meets where it is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from talking_points.examples import inference
from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.inference import describe_points, localize_points
from talking_points.models.base import TalkingPointsModel
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.training.adaptation import AdaptationTrainer, prepare_adaptation
from talking_points.training.config import AdaptConfig, LocalizerConfig, StageConfig
from talking_points.training.descriptor import DescriptorTrainer
from talking_points.training.localizer import LocalizerTrainer
from tests.pretend_cuda import CUDA, PretendCuda, WrongDeviceError
from tests.training.conftest import points, small

SHORT = {"batch_size": 4, "max_steps": 1, "learning_rate": 1e-3}


def test_what_a_gpu_refuses_is_refused() -> None:
    with PretendCuda():
        there = torch.ones(3, device="cuda")
        assert there.device == CUDA
        assert (there + 1).device == CUDA
        assert there[torch.tensor([0, 2])].device == CUDA
        assert (there * torch.tensor(2.0)).cpu().numpy().tolist() == [2, 2, 2]
        for refused in (
            lambda: there + torch.ones(3),
            lambda: torch.ones(3)[there.long()],
            lambda: torch.nn.functional.linear(torch.ones(3), torch.ones(2, 3, device="cuda")),
            lambda: there.numpy(),
        ):
            with pytest.raises(WrongDeviceError):
                refused()
        layer = torch.nn.Linear(3, 2).to("cuda")
        assert layer(there).device == CUDA
        assert layer.weight.device == CUDA


@pytest.mark.parametrize("kind", [PointLocalizer, PointDescriptor])
def test_features_are_computed_on_the_gpu_and_read_there(
    kind: type[TalkingPointsModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = points(2, 3)
    model = small(kind).eval()

    def answers(folder: str) -> list:
        features = FeatureConfig(folder=tmp_path / folder, limit_gb=1.0)
        if isinstance(model, PointLocalizer):
            return localize_points(model, data, features).tolist()
        assert isinstance(model, PointDescriptor)
        return describe_points(model, data, features, max_new_tokens=8)

    expected = answers("cpu")
    monkeypatch.setattr(inference, "process_state", lambda: SimpleNamespace(device=CUDA))
    with PretendCuda():
        assert answers("gpu") == expected
        assert model.device == CUDA


@pytest.mark.parametrize(
    ("kind", "trainer", "config"),
    [
        (PointLocalizer, LocalizerTrainer, LocalizerConfig(**SHORT)),
        (PointDescriptor, DescriptorTrainer, StageConfig(**SHORT)),
    ],
)
def test_a_step_on_the_gpu(kind, trainer, config, features, tmp_path) -> None:
    data = points(2, 2)
    model = small(kind)
    model.prepare_training()
    known = PointFeatures(model, data, features)
    known.prepare()
    running = trainer(model, known, config, tmp_path, seed=0)
    expected = running.compute_loss(model, {"points": data.examples})
    with PretendCuda():
        model.to("cuda")
        loss = running.compute_loss(model, {"points": data.examples})
        assert loss.device == CUDA
        loss.backward()
    assert torch.equal(loss, expected)


def test_a_step_of_adaptation_on_the_gpu(features, tmp_path) -> None:
    data = points(2, 2)
    model, localizer = small(PointDescriptor), small(PointLocalizer, seed=1)
    config = AdaptConfig(**SHORT, group=2, max_new_tokens=6, last_blocks=1)
    prepare_adaptation(model, config)
    own, judged = PointFeatures(model, data, features), PointFeatures(localizer, data, features)
    own.prepare()
    judged.prepare()
    running = AdaptationTrainer(model, localizer.eval(), own, judged, config, tmp_path, 0)
    with PretendCuda():
        model.to("cuda")
        localizer.to("cuda")
        loss = running.compute_loss(model, {"points": data.examples})
        assert loss.device == CUDA
        loss.backward()
    assert np.isfinite(loss.item())
