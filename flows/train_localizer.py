"""``train-localizer``: the Point Localizer, or the text-only control of it, from a dataset of triplets."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.training.config import TrainConfig
from talking_points.training.inputs import check_training
from tasks import train
from tasks.running.run_form import AtLeastOne, TrainPreset, load_run
from tasks.running.run_page import describe_output, end_training, name_run, tag_training


@flow(
    name="train-localizer",
    persist_result=False,
    flow_run_name=name_run(describe_output("localizer", TrainConfig)),
    validate_parameters=False,
)
def train_localizer(
    config: str = "configs/train/tiny.yaml",
    overrides: list[str] | None = None,
    preset: TrainPreset = "none",
    output: str = "",
    dataset: str = "",
    limit: AtLeastOne | None = None,
    seed: int | None = None,
    start: str = "",
) -> dict[str, Any]:
    """Train the localizer that a configuration describes into ``output/localizer``, a blind one into
    ``output/text-only``.

    Args:
        config: path of a YAML file with a ``TrainConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["localizer.epochs=3"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder that receives models, checkpoints, logs and curves.
        dataset: folder or Hub repository of the triplets.
        limit: at most so many training points.
        seed: of weights and batches.
        start: checkpoint to start from.

    Run again after an interruption it goes on from the last checkpoint; finished it is taken as it is.
    """
    settings = load_run(
        TrainConfig, config, overrides, preset, output=output, dataset=dataset, limit=limit, seed=seed, start=start
    )
    check_training(settings)
    tag_training("localizer", settings.preset, settings.dataset)
    if not settings.localizer.blind:  # which never sees what the vision path sees
        train.vision(settings)
    return end_training("localizer", train.localizer(settings))
