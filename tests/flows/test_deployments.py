"""Every deployment of ``prefect.yaml`` names a flow that takes its parameters, and a configuration that is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from talking_points.build_config import BuildConfig
from talking_points.config import load_config
from talking_points.evaluation.champions import RetrainConfig
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.reproduction import ReproduceConfig
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.examples.keypoint_authors import DescribeKeypointsConfig
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.config import TrainConfig
from talking_points.training.segmenter_config import SegmenterConfig

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
KINDS: dict[str, Any] = {
    "build-llamapointinpart": BuildConfig,
    "build-instructions": InstructionBuildConfig,
    "train-localizer": TrainConfig,
    "train-descriptor": TrainConfig,
    "adapt-descriptor": TrainConfig,
    "describe-keypoints": DescribeKeypointsConfig,
    "train-answerer": AnswererConfig,
    "train-segmenter": SegmenterConfig,
    "refine-segmenter": SegmenterConfig,
    "evaluate-segmentation": EvaluateSegmentationConfig,
    "evaluate": EvaluateConfig,
    "evaluate-poses": EvaluatePosesConfig,
    "reproduce": ReproduceConfig,
    "retrain-and-evaluate": RetrainConfig,
}


def test_all_flows_are_deployed() -> None:
    assert {deployment["name"] for deployment in DEPLOYMENTS} == {*KINDS, "learn", "poses", "outlines"}
    assert [d["name"] for d in DEPLOYMENTS if d.get("schedules")] == ["retrain-and-evaluate"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_can_run(deployment: dict[str, Any]) -> None:
    flow: Any = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == deployment["name"]
    # The fields of the form beside these have no values of their own: the configuration has them.
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)
    for name, field in flow.parameters.properties.items():
        numbers = [kind for kind in field.get("anyOf", [field]) if kind.get("type") in ("integer", "number")]
        if numbers and name != "seed":
            assert [kind.get("minimum") for kind in numbers] == [1], f"{name}: the form takes no 0"
    assert set(flow.parameters.required) <= set(deployment["parameters"])
    if deployment["name"] in KINDS:
        assert set(deployment["parameters"]) == {"config", "overrides"}
        assert load_config(KINDS[deployment["name"]], ROOT / deployment["parameters"]["config"])
    assert deployment["work_pool"]["name"] == "talking-points"
