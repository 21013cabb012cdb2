"""Evaluation, and the decision between champion and challenger, as tasks.

What needs torch is imported when a task runs: flows are deployed, and wrong settings are told, without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from tasks.model_cards import write_model_cards

if TYPE_CHECKING:
    from talking_points.evaluation.retraining import Retraining


@task(name="evaluation", persist_result=False, cache_policy=NO_CACHE)
def evaluation(settings: EvaluateConfig) -> dict[str, Any]:
    """Score every description set; returns mPCK by set and where the reports are."""
    from talking_points.evaluation.evaluate import evaluate

    reports = evaluate(settings)
    return {
        "path": str(settings.output),
        "mpck": {name: report.mpck for name, report in reports.items()},
        "interval": {name: report.interval for name, report in reports.items()},
        "controls": {name: report.controls for name, report in reports.items()},
        "above_text_only": {name: report.above_text_only for name, report in reports.items()},
        "undescribed": {name: report.undescribed for name, report in reports.items()},
    }


@task(name="pose-evaluation", persist_result=False, cache_policy=NO_CACHE)
def pose_evaluation(settings: EvaluatePosesConfig) -> dict[str, Any]:
    """Ask for every named keypoint; returns the means over partitions by way, and where the reports are."""
    from talking_points.evaluation.poses import evaluate_poses

    report = evaluate_poses(settings)
    return {"path": str(settings.output), "mean": report["mean"]}


@task(name="segmentation-evaluation", persist_result=False, cache_policy=NO_CACHE)
def segmentation_evaluation(settings: EvaluateSegmentationConfig) -> dict[str, Any]:
    """Ask for every region; returns the main figures by split, and where the reports are."""
    from talking_points.evaluation.segmentation import evaluate_segmentation

    report = evaluate_segmentation(settings)
    kept = ("res", "rec", "boundary_f", "ceiling")
    splits = {split: {key: found[key] for key in kept} for split, found in report["splits"].items()}
    return {"path": str(settings.output), "splits": splits}


@task(name="judge", persist_result=False, cache_policy=NO_CACHE)
def judge(retraining: Retraining) -> dict[str, Any]:
    """Evaluate challenger and champion on the same points, write the cards, decide; returns the history's entry.

    The cards come before the verdict is in force: a run that died in between is judged again and gets them then.
    """
    entry = retraining.judge()
    write_model_cards(retraining)
    retraining.conclude(entry)
    return entry
