"""``evaluate-poses``: named keypoints through an answerer, with controls, intervals and the published tables."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.config import load_config
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.pose_inputs import check_poses
from tasks.evaluate import pose_evaluation
from tasks.running.run_page import describe_output, name_run, tag_run


@flow(
    name="evaluate-poses",
    persist_result=False,
    flow_run_name=name_run(describe_output("poses", EvaluatePosesConfig)),
    validate_parameters=False,
)
def evaluate_poses(config: str = "configs/evaluate/poses.yaml", overrides: list[str] | None = None) -> dict[str, Any]:
    """Evaluate an answerer on one partition of MP-100 or all; reports and tables are written into ``output``.

    Args:
        config: path of a YAML file with an ``EvaluatePosesConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["partitions=[1,2,3,4,5]"]``.
    """
    settings = load_config(EvaluatePosesConfig, config, overrides or [])
    check_poses(settings)
    tag_run("evaluation", "poses")
    return pose_evaluation(settings)
