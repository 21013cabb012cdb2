"""Training stages as tasks. They are retried by running again: a stage goes on from its last checkpoint.

What needs torch is imported when a stage runs: flows are deployed, and wrong settings are told, without it.
"""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.config import TrainConfig
from talking_points.training.made_once import FINISHED
from talking_points.training.segmenter_config import SegmenterConfig
from tasks.model_cards import train_with_card


def _stage_task(kind: str, name: str) -> Task[[TrainConfig], dict[str, Any]]:
    """A stage of the table as a task that returns the stage's result."""

    def train(settings: TrainConfig) -> dict[str, Any]:
        return train_stage(kind, settings)

    return task(name=name, persist_result=False, cache_policy=NO_CACHE)(train)


def train_stage(kind: str, settings: TrainConfig) -> dict[str, Any]:
    """Train in this process, or in as many as the stage asks for, and take what they leave."""
    from talking_points.training.launcher import launch
    from talking_points.training.stages import STAGES

    stage = STAGES[kind]
    name, processes = stage.folder(settings), stage.processes(settings)
    if processes > 1 and not (settings.output / name / FINISHED).exists():
        launch(kind, settings, name, processes)
        return {**train_with_card(kind, settings), "reused": False}
    return train_with_card(kind, settings)


localizer = _stage_task("localizer", "localizer")
"""The localizer, or the text-only control where it is blind."""
descriptor = _stage_task("descriptor", "descriptor")
adaptation = _stage_task("adapted", "adaptation")
answerer = _stage_task("answerer", "answerer")
"""The answerer, or its twin that never sees an image."""
segmenter = _stage_task("segmenter", "segmenter")
refinement = _stage_task("refined", "refinement")
_vision = _stage_task("vision", "vision")
_segmenter_vision = _stage_task("segmenter_vision", "segmenter-vision")
_pose_vision = _stage_task("pose_vision", "pose-vision")


def vision(settings: TrainConfig) -> dict[str, Any]:
    """Pretrain the vision path where the configuration asks for it; returns the stage's result, or {}."""
    return _vision(settings) if settings.vision.steps else {}


def pose_vision(settings: AnswererConfig) -> dict[str, Any]:
    """Pretrain the tiny answerer's vision where the configuration asks for it; returns the stage's result, or {}."""
    return _pose_vision(settings) if settings.pose_vision.steps else {}


def segmenter_vision(settings: SegmenterConfig) -> dict[str, Any]:
    """Pretrain a tiny segmenter's vision where the configuration asks for it; returns the stage's result, or {}."""
    return _segmenter_vision(settings) if settings.segmenter_vision.backbone_steps and not settings.start else {}
