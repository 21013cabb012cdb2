"""A model that is loaded in bfloat16, as the 7B is, learns as one that is loaded in float32 does."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, Qwen2_5_VLForConditionalGeneration, TrainerCallback

from talking_points.config import load_config
from talking_points.examples.config import FeatureConfig
from talking_points.examples.regions import RegionExample
from talking_points.models.base import TalkingPointsModel
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.segmenter import Segmenter
from talking_points.sources.drawn import draw_sample
from talking_points.training.adaptation import adapt_descriptor
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.checkpoints import last_checkpoint
from talking_points.training.config import AdaptConfig, LocalizerConfig, StageConfig
from talking_points.training.descriptor import train_descriptor
from talking_points.training.localizer import train_localizer
from talking_points.training.made_once import FINISHED, STARTED
from talking_points.training.refinement import RefineTrainer
from talking_points.training.segmenter import start_segmenter
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.stages import run_stage
from talking_points.training.trainer import StageTrainer
from tests.models.test_image_text import tiny_qwen
from tests.training.conftest import points, small
from tests.training.small_instructions import write_instructions
from tests.training.test_answerer import tiny_parts

PAPER_RATE = 1e-5
LORA = {"train_lora": True, "train_language_model": False, "train_vocabulary": True}
GROUPS = {
    "projector": "projector.",
    "text_projector": "text_projector.",
    "adapters' A": ".lora_A.",
    "adapters' B": ".lora_B.",
    "coordinates": "coordinate_head.",
    "head": ".lm_head.",
    "embeddings": ".embed_tokens.",
    "positions": "image_positions.",
    "blocks": ".layers.",
    "norm": ".norm.",
}
"""Parts of a weight's name, its beginning where no dot is before."""
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


POINT_KINDS = {"localizer": PointLocalizer, "descriptor": PointDescriptor, "adaptation": PointDescriptor}
TINY = {"embeddings", "blocks", "norm", "head", "projector", "positions"}
TRAINED = {
    "localizer": set(GROUPS) - {"head", "positions", "blocks", "norm"},
    "descriptor": {"projector", "adapters' A", "adapters' B", "head", "embeddings"},
    "adaptation": {"adapters' A", "adapters' B"},
    "answerer": {"adapters' A", "adapters' B", "projector"},
    "segmenter": TINY,
    "refined segmenter": TINY,
    "image-text adapters": {"adapters' A", "adapters' B"},
    "refined image-text adapters": {"adapters' A", "adapters' B"},
}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What answerer and segmenters start from and learn from; weights once in bfloat16, once the same in float32."""
    folder = tmp_path_factory.mktemp("others")
    draw_sample(folder / "drawn", 12, 5, sources=["mp100"])
    write_instructions(folder, 1, ("train",))
    tiny_parts(folder)
    tiny_qwen(folder / "qwen")
    tiny = SegmenterConfig(output=folder, image_size=64, vocabulary_size=400, lattice=32)
    segmenter = start_segmenter(tiny, ["the dog and its head"])
    segmenter.language_model.to(torch.bfloat16)
    segmenter.save_pretrained(folder / "segmenter bfloat16")
    Segmenter.from_pretrained(folder / "segmenter bfloat16").float().save_pretrained(folder / "segmenter float32")
    for part, kind in (("llama", LlamaForCausalLM), ("qwen", Qwen2_5_VLForConditionalGeneration)):
        model = kind.from_pretrained(folder / part).to(torch.bfloat16)
        for dtype in ("bfloat16", "float32"):
            shutil.copytree(folder / part, folder / f"{part} {dtype}")
            model.to(getattr(torch, dtype)).save_pretrained(folder / f"{part} {dtype}")
    return folder


def train_other(kind: str, dtype: str, others: Path, output: Path, steps: int) -> None:
    """The stage of a kind that has its data in ``others``, from its start in ``dtype``."""
    own = {
        "batch_size": 2, "learning_rate": PAPER_RATE, "warmup": 0, "bf16": True, "save_steps": steps,
        "max_steps": steps, "eval_steps": 99, "log_steps": 40,
    }  # fmt: skip
    if kind == "answerer":
        more = [f"output={output}", f"poses.root={others / 'drawn' / 'mp100'}", "allow_drawn=true", "threads=1"]
        more += [f"answerer.language_model={others / f'llama {dtype}'}", f"answerer.vision_model={others / 'dino'}"]
        more += [f"answerer.{name}={value}" for name, value in own.items()]
        given = [*more, "answerer.accumulation=1", "answerer.gradient_checkpointing=false"]
        run_stage("answerer", load_config(AnswererConfig, "configs/train/answerer_small.yaml", given))
        return
    start = str(others / f"{'qwen' if 'image-text' in kind else 'segmenter'} {dtype}")
    refine = {**own, "kinds": [], "group": 2, "updates": 2, "max_new_tokens": 6, "beta": 0.01}
    preset = {"preset": "image_text", "lora_rank": 4} if "image-text" in kind else {}
    config = {
        "output": output, "start": start, "segmenter_path": start, "threads": 1, **preset, "segmenter": own,
        "refine": refine, "instructions": {"root": others / "instructions"},
        "features": {"folder": others / "features"},
    }  # fmt: skip
    run_stage("refined" if "refined" in kind else "segmenter", SegmenterConfig.model_validate(config))


def group_of(name: str) -> str:
    """The first group that a weight belongs to."""
    return next(group for group, part in GROUPS.items() if (part in name if part[0] == "." else name.startswith(part)))


def moved(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> dict[str, float]:
    """The share of the trained weights of each group that are no longer what they were, in percent."""
    changed: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    for name, value in model.named_parameters():
        if name in before:
            changed[group_of(name)] += int((value != before[name]).sum())
            all_of[group_of(name)] += value.numel()
    return {group: 100 * changed[group] / count for group, count in all_of.items()}


class Starts(TrainerCallback):
    """Keeps the weights that a training begins with."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, model, **_) -> None:
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[StageTrainer, Starts]]:
    """The trainer that ran last, and what it began with."""
    running: list[tuple[StageTrainer, Starts]] = []
    run = StageTrainer.run

    def watching(trainer: StageTrainer) -> dict[str, float]:
        starts = Starts()
        trainer.add_callback(starts)
        running.append((trainer, starts))
        return run(trainer)

    def rewards(trainer: RefineTrainer, examples: Sequence[RegionExample], texts: Sequence[str]) -> Any:
        return np.arange(len(texts), dtype=np.float64), [None] * len(texts)

    monkeypatch.setattr(StageTrainer, "run", watching)
    # What random weights write is worth nothing, and equal rewards move no weight.
    monkeypatch.setattr(RefineTrainer, "rewards", rewards)
    return lambda: running[-1]


Run = Callable[[str, Path, int], tuple[StageTrainer, Starts]]


@pytest.fixture(params=TRAINED)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(kind: str, tmp_path: Path, watched, request: pytest.FixtureRequest) -> Run:
    """Train the kind from its start in a precision; returns its trainer and what that began with."""
    folder: Path = request.getfixturevalue("folder" if kind in POINT_KINDS else "others")
    if kind in POINT_KINDS:
        (tmp_path / "judge").symlink_to(folder / "PointLocalizer bfloat16")

    def run(dtype: str, output: Path, steps: int) -> tuple[StageTrainer, Starts]:
        if kind in POINT_KINDS:
            model = POINT_KINDS[kind].from_pretrained(folder / f"{POINT_KINDS[kind].__name__} {dtype}")
            assert model.dtype == getattr(torch, dtype)
            train(kind, model, output, FeatureConfig(folder=folder / "features", limit_gb=1.0), steps)
        else:
            train_other(kind, dtype, folder, output, steps)
        return watched()

    return run


@pytest.mark.slow
def test_as_many_weights_move_from_a_bfloat16_start(kind: str, run: Run, tmp_path: Path) -> None:
    shares = {}
    for dtype in ("float32", "bfloat16"):
        trainer, starts = run(dtype, tmp_path / dtype, 40)
        shares[dtype] = moved(trainer.model, starts.weights)
        assert trainer.state.global_step == 40
        assert {value.dtype for value in starts.weights.values()} == {torch.float32}
        assert trainer.optimizer is not None
        assert {
            value.dtype
            for state in trainer.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        } == {torch.float32}
    assert shares["bfloat16"] == pytest.approx(shares["float32"], abs=2)
    assert set(shares["bfloat16"]) == TRAINED[kind]
    assert all(share > 50 for group, share in shares["bfloat16"].items() if group != "embeddings"), shares
    if kind in POINT_KINDS:  # what was saved can be loaded again, in the precision that it started from
        loaded = POINT_KINDS[kind].from_pretrained(tmp_path / "bfloat16")
        assert loaded.dtype == torch.bfloat16
        assert {value.dtype for value in loaded.vision.parameters()} == {torch.float32}


def test_a_resumed_training_goes_on_from_float32(run: Run, tmp_path: Path) -> None:
    trainer, _ = run("bfloat16", tmp_path / "resumed", 2)
    checkpoint = last_checkpoint(trainer.args.output_dir)
    assert checkpoint is not None
    for name in (STARTED, FINISHED):  # of a stage, which would be told apart by its number of steps
        (checkpoint.parent / name).unlink(missing_ok=True)
    saved = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    _, starts = run("bfloat16", tmp_path / "resumed", 4)
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
