"""``adapt-descriptor``: the Point Descriptor on new categories, from points without descriptions."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.training.config import TrainConfig
from talking_points.training.inputs import check_adaptation
from tasks import train
from tasks.running.run_form import TrainPreset, load_run
from tasks.running.run_page import describe_output, end_training, name_run, tag_training


@flow(
    name="adapt-descriptor",
    persist_result=False,
    flow_run_name=name_run(describe_output("adaptation", TrainConfig)),
    validate_parameters=False,
)
def adapt_descriptor(
    config: str = "configs/train/tiny.yaml",
    overrides: list[str] | None = None,
    preset: TrainPreset = "none",
    output: str = "",
    keypoints: str = "",
    descriptor_path: str = "",
    localizer_path: str = "",
    seed: int | None = None,
) -> dict[str, Any]:
    """Adapt a trained descriptor by the reward of a trained localizer (paper, section 3.4).

    It goes into ``output/adapted-<categories>``, named after what it is adapted on, such as a family of AP-10K.

    Args:
        config: path of a YAML file with a ``TrainConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["keypoints.source=mp100"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder that receives models, checkpoints, logs and curves.
        keypoints: folder of AP-10K, or of the source that the configuration names.
        descriptor_path: the descriptor to adapt; default: the one in output.
        localizer_path: the rewarding localizer; default: the one in output.
        seed: of weights and batches.
    """
    settings = load_run(
        TrainConfig,
        config,
        overrides,
        preset,
        output=output,
        keypoints=keypoints,
        descriptor_path=descriptor_path,
        localizer_path=localizer_path,
        seed=seed,
    )
    check_adaptation(settings)
    tag_training("adaptation", settings.preset, settings.dataset)
    return end_training("adaptation", train.adaptation(settings))
