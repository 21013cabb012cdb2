"""Evaluation, and the decision between champion and challenger, as tasks."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.evaluate import evaluate
from talking_points.evaluation.retraining import Retraining


@task(name="evaluation", persist_result=False, cache_policy=NO_CACHE)
def evaluation(settings: EvaluateConfig) -> dict[str, Any]:
    """Score every description set; returns mPCK by set and where the reports are."""
    reports = evaluate(settings)
    return {
        "path": str(settings.output),
        "mpck": {name: report.mpck for name, report in reports.items()},
        "interval": {name: report.interval for name, report in reports.items()},
        "controls": {name: report.controls for name, report in reports.items()},
    }


@task(name="judge", persist_result=False, cache_policy=NO_CACHE)
def judge(retraining: Retraining) -> dict[str, Any]:
    """Evaluate the challenger and the champion on the same points and decide; returns the history's entry."""
    return retraining.judge()
