"""A model that is loaded in bfloat16, as the 7B is, learns as one that is loaded in float32 does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from talking_points.examples.config import FeatureConfig
from talking_points.models.base import TalkingPointsModel
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.training.adaptation import AdaptationTrainer, adapt_descriptor
from talking_points.training.checkpoints import last_checkpoint
from talking_points.training.config import AdaptConfig, LocalizerConfig, StageConfig
from talking_points.training.descriptor import train_descriptor
from talking_points.training.localizer import train_localizer
from talking_points.training.trainer import PointTrainer
from tests.training.conftest import points, small

PAPER_RATE = 1e-5
LORA = {"train_lora": True, "train_language_model": False, "train_vocabulary": True}
GROUPS = {
    "projector": ("projector.",),
    "text_projector": ("text_projector.",),
    "adapters' A": (".lora_A.",),
    "adapters' B": (".lora_B.",),
    "coordinates": ("coordinate_head.",),
    "head": (".lm_head.",),
    "embeddings": (".embed_tokens.",),
}
TRAIN, HELD_OUT = points(6).hold_out(1 / 3)
STEPS = {
    "batch_size": 4, "learning_rate": PAPER_RATE, "bf16": True, "save_steps": 40, "eval_steps": 40, "eval_points": 2,
    "log_steps": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of start, in bfloat16 as a converted release is, and the same numbers in float32."""
    folder = tmp_path_factory.mktemp("starts")
    for kind in (PointDescriptor, PointLocalizer):
        model = small(kind, **LORA)
        for part in (model.projector, model.text_projector, model.language_model):
            part.to(torch.bfloat16)
        model.save_pretrained(folder / f"{kind.__name__} bfloat16")
        kind.from_pretrained(folder / f"{kind.__name__} bfloat16").float().save_pretrained(
            folder / f"{kind.__name__} float32"
        )
    return folder


def train(kind: str, start: TalkingPointsModel, output: Path, features: FeatureConfig, steps: int) -> None:
    torch.manual_seed(0)
    if isinstance(start, PointLocalizer):
        own = LocalizerConfig(**STEPS, max_steps=steps)
        train_localizer(start, TRAIN, HELD_OUT, own, features, output)
    elif kind == "adaptation":
        config = AdaptConfig(**{**STEPS, "batch_size": 2}, max_steps=steps, group=2, max_new_tokens=3, last_blocks=1)
        judge = PointLocalizer.from_pretrained(output.parent / "judge")
        adapt_descriptor(start, judge, TRAIN, HELD_OUT, config, features, output)
    else:
        assert isinstance(start, PointDescriptor)
        train_descriptor(start, TRAIN, HELD_OUT, StageConfig(**STEPS, max_steps=steps), features, output)


KINDS = {"localizer": PointLocalizer, "descriptor": PointDescriptor, "adaptation": PointDescriptor}
TRAINED = {
    "localizer": set(GROUPS) - {"head"},
    "descriptor": set(GROUPS) - {"text_projector", "coordinates"},
    "adaptation": {"adapters' A", "adapters' B"},
}


def moved(model: TalkingPointsModel, before: dict[str, torch.Tensor]) -> dict[str, float]:
    """The share of the trained weights of each group that are no longer what they were, in percent."""
    shares = {}
    for group, parts in GROUPS.items():
        weights = {
            name: value
            for name, value in model.named_parameters()
            if name in before and (name.startswith(parts) or any(part in name for part in parts if part[0] == "."))
        }
        if weights:
            changed = sum(int((value != before[name]).sum()) for name, value in weights.items())
            shares[group] = 100 * changed / sum(value.numel() for value in weights.values())
    return shares


class Starts(TrainerCallback):
    """Keeps the weights that a training begins with."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, model, **_) -> None:
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[PointTrainer, Starts]]:
    """The trainer that ran last, and what it began with."""
    running: list[tuple[PointTrainer, Starts]] = []
    run = PointTrainer.run

    def watching(trainer: PointTrainer) -> dict[str, float]:
        starts = Starts()
        trainer.add_callback(starts)
        running.append((trainer, starts))
        return run(trainer)

    monkeypatch.setattr(PointTrainer, "run", watching)
    monkeypatch.setattr(AdaptationTrainer, "run", watching)
    return lambda: running[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_weights_move_from_a_bfloat16_start(kind: str, folder: Path, tmp_path: Path, watched) -> None:
    features = FeatureConfig(folder=folder / "features", limit_gb=1.0)
    shares = {}
    (tmp_path / "judge").symlink_to(folder / "PointLocalizer bfloat16")
    for dtype in ("float32", "bfloat16"):
        model = KINDS[kind].from_pretrained(folder / f"{KINDS[kind].__name__} {dtype}")
        assert model.dtype == getattr(torch, dtype)
        train(kind, model, tmp_path / dtype, features, steps=40)
        trainer, starts = watched()
        shares[dtype] = moved(model, starts.weights)
        assert trainer.state.global_step == 40
        assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
        assert {
            value.dtype
            for state in trainer.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        } == {torch.float32}
    assert shares["bfloat16"] == pytest.approx(shares["float32"], abs=2)
    assert set(shares["bfloat16"]) == TRAINED[kind]
    assert all(share > 50 for group, share in shares["bfloat16"].items() if group != "embeddings"), shares
    # What was saved can be loaded again, in the precision that it started from.
    loaded = KINDS[kind].from_pretrained(tmp_path / "bfloat16")
    assert loaded.dtype == torch.bfloat16
    assert {value.dtype for value in loaded.vision.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_goes_on_from_float32(kind: str, folder: Path, tmp_path: Path, watched) -> None:
    features = FeatureConfig(folder=folder / "features", limit_gb=1.0)
    (tmp_path / "judge").symlink_to(folder / "PointLocalizer bfloat16")

    def begin(output: str, steps: int) -> TalkingPointsModel:
        model = KINDS[kind].from_pretrained(folder / f"{KINDS[kind].__name__} bfloat16")
        train(kind, model, tmp_path / output, features, steps)
        return model

    begin("resumed", 2)
    checkpoint = last_checkpoint(tmp_path / "resumed")
    assert checkpoint is not None
    saved = load_file(checkpoint / "model.safetensors")
    begin("resumed", 3)
    _, starts = watched()
    assert starts.weights
    for name, value in starts.weights.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, saved[name]), name
        if ".lora_B." in name:  # began at zero: what is there was learnt, and would not survive bfloat16
            assert not torch.equal(value, value.bfloat16().float())


def test_coordinates_are_float32_when_the_head_is_new(folder: Path) -> None:
    """A release has no coordinate head; one that started in bfloat16 would move in steps of 1/256 of the image."""
    release = PointDescriptor.from_pretrained(folder / "PointDescriptor bfloat16")
    release.save_pretrained(folder / "release")
    model = PointLocalizer.from_pretrained(folder / "release", config=PointLocalizer.read_config(folder / "release"))
    assert model.dtype == torch.bfloat16
    assert {value.dtype for value in model.coordinate_head.parameters()} == {torch.float32}
    hidden = torch.randn(64, model.config.text_config.hidden_size, generator=torch.manual_seed(0)).bfloat16()
    found = model.coordinates(hidden)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())


def test_without_autocast_everything_is_float32(folder: Path, tmp_path: Path) -> None:
    model = PointLocalizer.from_pretrained(folder / "PointLocalizer bfloat16")
    config = LocalizerConfig(**{**STEPS, "bf16": False}, max_steps=1)
    train_localizer(model, TRAIN, HELD_OUT, config, FeatureConfig(folder=folder / "features"), tmp_path / "run")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
