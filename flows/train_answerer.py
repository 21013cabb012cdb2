"""``train-answerer``: the Point Answerer, or its blind twin, from objects with named keypoints."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.config import load_config
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.answerer_inputs import check_answerer
from tasks import train
from tasks.running.run_page import describe_output, end_training, name_run, tag_run


@flow(
    name="train-answerer",
    persist_result=False,
    flow_run_name=name_run(describe_output("answerer", AnswererConfig)),
    validate_parameters=False,
)
def train_answerer(config: str = "configs/train/answerer.yaml", overrides: list[str] | None = None) -> dict[str, Any]:
    """Train the answerer that a configuration describes into ``output/answerer``, a blind one into
    ``output/answerer-blind``.

    Args:
        config: path of a YAML file with an ``AnswererConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["poses.root=mp100", "answerer.k=1"]``.

    Run again after an interruption it goes on from the last checkpoint; finished it is taken as it is.
    """
    settings = load_config(AnswererConfig, config, overrides or [])
    check_answerer(settings)
    tag_run("training", "answerer", f"preset:{settings.preset}")
    if not settings.answerer.blind:  # which never sees what the vision model sees
        train.pose_vision(settings)
    return end_training("answerer", train.answerer(settings))
