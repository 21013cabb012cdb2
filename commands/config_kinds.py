"""Whose a configuration is that another command was given: a name of a file tells little, its settings do."""

from __future__ import annotations

import importlib
from contextlib import suppress

KINDS = {
    "talking_points.build_config:BuildConfig": "build",
    "talking_points.instructions.config:InstructionBuildConfig": "build-instructions",
    "talking_points.training.config:TrainConfig": "train-localizer, train-descriptor and adapt-descriptor",
    "talking_points.training.answerer_config:AnswererConfig": "train-answerer",
    "talking_points.training.segmenter_config:SegmenterConfig": "train-segmenter and refine-segmenter",
    "talking_points.evaluation.config:EvaluateConfig": "evaluate",
    "talking_points.evaluation.pose_config:EvaluatePosesConfig": "evaluate-poses",
    "talking_points.evaluation.segmentation_config:EvaluateSegmentationConfig": "evaluate-segmentation",
    "talking_points.evaluation.retraining_config:RetrainConfig": "retrain-and-evaluate",
    "talking_points.evaluation.reproduction:ReproduceConfig": "plan and reproduce",
    "talking_points.examples.keypoint_authors:DescribeKeypointsConfig": "describe-keypoints",
    "talking_points.examples.pose_rows:PoseRowsConfig": "write-pose-rows",
}
"""The configurations that there are, and the commands that take them."""


def whose_config(error: Exception) -> str:
    """Which commands take the file that ``error`` complains of; empty where none does, or its own command does."""
    keys = getattr(error, "strangers", ())
    if not keys:
        return ""
    found: dict[str, int] = {}
    for place, commands in KINDS.items():
        module, _, name = place.partition(":")
        with suppress(ImportError):  # an extra that is not installed
            kind = getattr(importlib.import_module(module), name)
            if set(keys) <= set(kind.model_fields):
                found[commands] = len(kind.model_fields)
    # A kind that extends another takes the other's files too.
    return f"\nThese are settings of {min(found, key=found.__getitem__)}: was another --config meant?" if found else ""
