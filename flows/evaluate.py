"""``evaluate``: description sets through a localizer, with controls, intervals, comparisons and the paper's tables."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.inputs import check_evaluation
from tasks.evaluate import evaluation
from tasks.running.run_form import AtLeastOne, EvaluatePreset, load_run
from tasks.running.run_page import describe_output, name_run, tag_dataset, tag_run


@flow(
    name="evaluate",
    persist_result=False,
    flow_run_name=name_run(describe_output("evaluation", EvaluateConfig)),
    validate_parameters=False,
)
def evaluate(
    config: str = "configs/evaluate/triplets.yaml",
    overrides: list[str] | None = None,
    preset: EvaluatePreset = "none",
    output: str = "",
    dataset: str = "",
    split: str = "",
    localizer: str = "",
    limit: AtLeastOne | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Evaluate what a configuration names; reports and tables are written into its ``output``.

    Args:
        config: path of a YAML file with an ``EvaluateConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["sets.human.file=human.jsonl"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder that receives reports and tables.
        dataset: folder or Hub repository of the triplets.
        split: split of the dataset that is evaluated.
        localizer: folder or Hub repository of the Point Localizer.
        limit: at most so many points.
        seed: draws the points.
    """
    settings = load_run(
        EvaluateConfig,
        config,
        overrides,
        preset,
        output=output,
        dataset=dataset,
        split=split,
        localizer=localizer,
        limit=limit,
        seed=seed,
    )
    check_evaluation(settings)
    tag_run("evaluation")
    if settings.dataset:
        tag_dataset(settings.dataset)
    return evaluation(settings)
