"""``retrain-and-evaluate``: train a challenger, judge it against the champion, promote it only when it is better."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.evaluation.champions import RetrainConfig, check_retraining
from talking_points.evaluation.retraining import Retraining
from tasks import train
from tasks.evaluate import judge
from tasks.publish_models import publish_champion
from tasks.running.run_form import AtLeastOne, load_run
from tasks.running.run_page import describe_output, name_run, tag_training


@flow(
    name="retrain-and-evaluate",
    persist_result=False,
    flow_run_name=name_run(describe_output("retraining", RetrainConfig, "folder")),
    validate_parameters=False,
)
def retrain_and_evaluate(
    config: str = "configs/train/retrain.yaml",
    overrides: list[str] | None = None,
    folder: str = "",
    limit: AtLeastOne | None = None,
    dataset: str = "",
    revision: str = "",
    seed: int | None = None,
) -> dict[str, Any]:
    """Train on the configured revision of the dataset and compare with the champion on the same test points.

    Args:
        config: path of a YAML file with a ``RetrainConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["train.localizer.epochs=3"]``.
        folder: holds the champion, the history and the runs.
        limit: at most so many test points.
        dataset: folder or Hub repository of the triplets.
        revision: branch, tag or commit of a dataset on the Hub.
        seed: of weights and batches.

    Trains nothing when neither data nor configuration nor code has changed since a finished run. After a crash the
    same run goes on from its last checkpoint. The champion's models are published where ``publish`` names
    repositories; when that fails the flow fails, and running it again only publishes. Returns the history's
    entry with the paths of the run, of its report and of the history.
    """
    train_on: dict[str, Any] = {"train.dataset": dataset, "train.revision": revision, "train.seed": seed}
    settings = load_run(RetrainConfig, config, overrides, folder=folder, limit=limit, **train_on)
    check_retraining(settings)
    tag_training("retraining", settings.train.preset, settings.train.dataset)
    retraining = Retraining(settings)
    entry = retraining.find_finished()
    changed = entry is None
    if entry is None:
        train.vision(retraining.train)
        train.localizer(retraining.train)
        train.localizer(retraining.text_only)
        train.descriptor(retraining.train)
        entry = judge(retraining)
    published = publish_champion(retraining) if retraining.config.publish.repositories else {}
    return {**entry, **retraining.written, "changed": changed, "published": published}
