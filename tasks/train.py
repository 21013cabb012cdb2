"""Training stages as tasks. They are retried by running again: a stage goes on from its last checkpoint."""

from __future__ import annotations

from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.training.config import TrainConfig
from talking_points.training.launcher import launch
from talking_points.training.stages import FINISHED, STAGES, adapted_descriptor, pretrained_vision


@task(name="vision", persist_result=False, cache_policy=NO_CACHE)
def vision(settings: TrainConfig) -> dict[str, Any]:
    """Pretrain the vision path where the configuration asks for it; returns the stage's result, or {}."""
    return pretrained_vision(settings) if settings.vision.steps else {}


@task(name="localizer", persist_result=False, cache_policy=NO_CACHE)
def localizer(settings: TrainConfig) -> dict[str, Any]:
    """Train the localizer, or the text-only control where it is blind; returns the stage's result."""
    return _trained("localizer", settings, settings.localizer.stage)


@task(name="descriptor", persist_result=False, cache_policy=NO_CACHE)
def descriptor(settings: TrainConfig) -> dict[str, Any]:
    """Train the descriptor; returns the stage's result."""
    return _trained("descriptor", settings, "descriptor")


@task(name="adaptation", persist_result=False, cache_policy=NO_CACHE)
def adaptation(settings: TrainConfig) -> dict[str, Any]:
    """Adapt the descriptor by reward; returns the stage's result."""
    return adapted_descriptor(settings)


def _trained(kind: Literal["descriptor", "localizer"], settings: TrainConfig, name: str) -> dict[str, Any]:
    """Train in this process, or in several and take what they leave."""
    finished = (settings.output / name / FINISHED).exists()
    if getattr(settings, kind).processes > 1 and not finished:
        launch(kind, settings, name)
        return {**STAGES[kind](settings, name), "reused": False}
    return STAGES[kind](settings, name)
