"""``reproduce``: everything between the raw datasets and the paper's tables, step by step, each skipped when done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.adapt_descriptor import adapt_descriptor
from flows.build_llamapointinpart import build_llamapointinpart
from flows.evaluate import evaluate
from flows.train_descriptor import train_descriptor
from flows.train_localizer import train_localizer
from talking_points.config import load_config
from talking_points.evaluation import reproduction
from talking_points.evaluation.reproduction import Command, ReproduceConfig, StepOfReproduction
from tasks.reproduction import convert, tables
from tasks.running.run_page import describe_output, name_run, tag_run

_LOG = logging.getLogger(__name__)

FLOWS: dict[Command, Callable[..., Any]] = {
    "build": build_llamapointinpart,
    "train-localizer": train_localizer,
    "train-descriptor": train_descriptor,
    "adapt-descriptor": adapt_descriptor,
    "evaluate": evaluate,
}


@flow(
    name="reproduce",
    persist_result=False,
    flow_run_name=name_run(describe_output("reproduction", ReproduceConfig)),
    validate_parameters=False,
)
def reproduce(config: str = "configs/reproduce/paper.yaml", overrides: list[str] | None = None) -> dict[str, Any]:
    """Run the steps of a configuration in their order.

    Args:
        config: path of a YAML file with a ``ReproduceConfig``.
        overrides: ``key=value`` settings applied on top.

    A step that was done with the same settings, after the same steps, is skipped; run again after an interruption it
    goes on where it stopped. Returns which steps ran and which were skipped, and where the tables are.
    """
    settings = load_config(ReproduceConfig, config, overrides or [])
    reproduction.check_reproduction(settings)
    tag_run("reproduction")
    ran, skipped, key = [], [], ""
    for step in settings.steps:
        own = step.settings()
        key = reproduction.step_key(step, own, key)
        if reproduction.is_done(step, settings, own, key):
            skipped.append(step.name)
            continue
        _LOG.info("%s: %s", step.name, reproduction.command_line(step, settings))
        reproduction.mark_done(step, settings, key, _run(step, settings))
        ran.append(step.name)
    return {"path": str(settings.output / "tables"), "ran": ran, "skipped": skipped}


def _run(step: StepOfReproduction, settings: ReproduceConfig) -> Any:
    if step.run == "convert-omg-llava":
        return convert(settings.release, settings.converted)
    if step.run == "tables":
        return tables(reproduction.report_folders(settings), settings.output / "tables")
    return FLOWS[step.run](step.config, list(step.overrides))
