"""Training stages as tasks. They are retried by running again: a stage goes on from its last checkpoint."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.training.config import TrainConfig
from talking_points.training.stages import (
    adapted_descriptor,
    pretrained_vision,
    trained_descriptor,
    trained_localizer,
)


@task(name="vision", persist_result=False, cache_policy=NO_CACHE)
def vision(settings: TrainConfig) -> dict[str, Any]:
    """Pretrain the vision path where the configuration asks for it; returns the stage's result, or {}."""
    return pretrained_vision(settings) if settings.vision.steps else {}


@task(name="localizer", persist_result=False, cache_policy=NO_CACHE)
def localizer(settings: TrainConfig, name: str = "localizer") -> dict[str, Any]:
    """Train the localizer; returns the stage's result."""
    return trained_localizer(settings, name)


@task(name="descriptor", persist_result=False, cache_policy=NO_CACHE)
def descriptor(settings: TrainConfig, name: str = "descriptor") -> dict[str, Any]:
    """Train the descriptor; returns the stage's result."""
    return trained_descriptor(settings, name)


@task(name="adaptation", persist_result=False, cache_policy=NO_CACHE)
def adaptation(settings: TrainConfig, name: str = "adapted") -> dict[str, Any]:
    """Adapt the descriptor by reward; returns the stage's result."""
    return adapted_descriptor(settings, name)
