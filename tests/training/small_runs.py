"""Small trainings as a process of its own runs them, to be killed or to meet a full disk at any of their events."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch

from talking_points.errors import TrainingStoppedError
from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.models.base import TalkingPointsModel
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.training.adaptation import adapt_descriptor
from talking_points.training.config import AdaptConfig, LocalizerConfig, StageConfig
from talking_points.training.descriptor import train_descriptor
from talking_points.training.localizer import LocalizerTrainer, train_localizer
from talking_points.training.trainer import StageTrainer
from tests.training.conftest import points, small

SHORT = {
    "batch_size": 4, "max_steps": 5, "learning_rate": 3e-3, "warmup": 0.0, "save_steps": 2, "eval_steps": 2,
    "log_steps": 1,
}  # fmt: skip
METRIC = {1: 1.0, 2: 5.0, 3: 4.0, 4: 5.0, 5: 9.0}
"""What the running metric of ``impatient`` is after each step: no better in two evaluations after the second step."""

TRAIN, HELD_OUT = points(6).hold_out(1 / 3)

EVENTS = {
    TalkingPointsModel: ("save_pretrained",),
    StageTrainer: ("training_step", "evaluate", "_save_optimizer_and_scheduler", "_save_rng_state", "_rotate", "log"),
}


def localizer(output: Path, features: FeatureConfig) -> None:
    config = LocalizerConfig(**SHORT)
    train_localizer(small(PointLocalizer), TRAIN, HELD_OUT, config, features, output)


def descriptor(output: Path, features: FeatureConfig) -> None:
    config = StageConfig(**SHORT, optimizer="muon")
    train_descriptor(small(PointDescriptor), TRAIN, HELD_OUT, config, features, output)


def adapted(output: Path, features: FeatureConfig) -> None:
    config = AdaptConfig(
        **{**SHORT, "batch_size": 2, "max_steps": 4}, group=3, max_new_tokens=6, last_blocks=1, sample_steps=1
    )
    judge = small(PointLocalizer, seed=1)
    adapt_descriptor(small(PointDescriptor), judge, TRAIN, HELD_OUT, config, features, output)


def impatient(output: Path, features: FeatureConfig) -> None:
    """Stops early, in a step that saves."""
    model = small(PointLocalizer)
    model.prepare_training()
    known = PointFeatures(model, TRAIN, features)
    known.prepare()
    config = LocalizerConfig(**{**SHORT, "eval_steps": 1}, patience=2, validation=0.5)
    trainer = LocalizerTrainer(model, known, config, output, 0, lambda: METRIC[trainer.state.global_step])
    trainer.run()


RUNS: dict[str, Callable[[Path, FeatureConfig], None]] = {
    run.__name__: run for run in (localizer, descriptor, adapted, impatient)
}


def run(name: str, folder: Path, output: str, hook: Callable[[str], None], features: str = "features") -> None:
    """Run one training into ``folder / output``; ``hook`` is told every event by name, before it happens."""
    torch.set_num_threads(1)
    patches = [
        patch.object(owner, method, _told(getattr(owner, method), hook))
        for owner, methods in EVENTS.items()
        for method in methods
    ]
    try:
        for each in patches:
            each.start()
        RUNS[name](folder / output, FeatureConfig(folder=folder / features, limit_gb=1.0))
    finally:
        patch.stopall()


def killed_run(name: str, folder: Path, output: str, event: int) -> None:
    """What a killed process does: it dies before the event of this number."""
    run(name, folder, output, _before(event, lambda: os.kill(os.getpid(), signal.SIGKILL)))


def run_on_a_full_disk(
    name: str, folder: Path, output: str, event: int, features: str, limit: int, answer: Connection
) -> None:
    """From the event of this number on no file can grow beyond ``limit`` bytes; answers why the training stopped."""

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    if event < 0:
        fill()
    try:
        run(name, folder, output, _before(event, fill), features)
    except TrainingStoppedError as error:
        answer.send(str(error))


def _told(method: Callable, hook: Callable[[str], None]) -> Callable:
    @wraps(method)
    def told(*args, **kwargs):
        hook(method.__name__)
        return method(*args, **kwargs)

    return told


def _before(event: int, act: Callable[[], None]) -> Callable[[str], None]:
    left = iter(range(event + 1))

    def hook(_: str) -> None:
        if next(left, None) == event:
            act()

    return hook
