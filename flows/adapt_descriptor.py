"""``adapt-descriptor``: the Point Descriptor on new categories, from points without descriptions."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.config import load_config
from talking_points.training.config import TrainConfig
from talking_points.training.inputs import check_adaptation
from tasks import train
from tasks.running.run_page import describe_output, end_training, name_run, tag_training


@flow(
    name="adapt-descriptor",
    persist_result=False,
    flow_run_name=name_run(describe_output("adaptation", TrainConfig)),
    validate_parameters=False,
)
def adapt_descriptor(config: str = "configs/train/tiny.yaml", overrides: list[str] | None = None) -> dict[str, Any]:
    """Adapt a trained descriptor by the reward of a trained localizer (paper, section 3.4).

    It goes into ``output/adapted-<categories>``, named after what it is adapted on, such as a family of AP-10K.

    Args:
        config: path of a YAML file with a ``TrainConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["keypoints.root=/data/ap-10k"]``.
    """
    settings = load_config(TrainConfig, config, overrides or [])
    check_adaptation(settings)
    tag_training("adaptation", settings.preset, settings.dataset)
    return end_training("adaptation", train.adaptation(settings))
