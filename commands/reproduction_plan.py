"""``talking-points plan``: what a reproduction takes, from its configurations and stated assumptions alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from talking_points.build_config import BuildConfig
from talking_points.descriptions.budget import ASSUMPTIONS as BUILD_ASSUMPTIONS
from talking_points.descriptions.budget import plan_budget
from talking_points.descriptions.memory_plan import GPUS
from talking_points.evaluation.reproduction import ReproduceConfig, StepOfReproduction, command_line
from talking_points.evaluation.resources import DATASETS, RELEASE, find_resources
from talking_points.redacted_console import RedactedConsole
from talking_points.training.config import TrainConfig
from talking_points.training.paper_plan import ASSUMPTIONS as TRAINING_ASSUMPTIONS
from talking_points.training.paper_plan import DECODER_STEP, plan_stage

GB = 1e9
_TRIPLETS = 21_000
_DATASET_BYTES = 4 * GB
"""The published dataset with its images, and its shards while it is built: an estimate."""
_KINDS = {"train-localizer": "localizer", "train-descriptor": "descriptor", "adapt-descriptor": "adapted"}
_TEST_POINTS, _ANSWER_TOKENS, _BATCH = 4_000, 80, 32


@dataclass(frozen=True)
class _Row:
    """Hours on one H100, the most memory of the GPU, disk that stays and that is needed meanwhile; None: not known."""

    hours: float | None = 0.0
    memory: float = 0.0
    kept: float = 0.0
    meanwhile: float = 0.0


def print_reproduction(config: ReproduceConfig) -> None:
    """Print the plan of every step, its sum, the downloads, and the assumptions."""
    console = RedactedConsole()
    table = Table(title="Plan, estimated: one H100")
    for column in ("step", "hours", "GPU, GB", *GPUS, "disk, GB"):
        whole = max(len(step.name) for step in config.steps) if column == "step" else None
        table.add_column(column, no_wrap=column == "step", min_width=whole)
    rows = []
    for step in config.steps:
        row = _plan(step, step.settings())
        rows.append(row)
        fits = ["" if not row.memory else "yes" if row.memory < size * 0.96 else "no" for size in GPUS.values()]
        table.add_row(
            step.name,
            "?" if row.hours is None else f"{row.hours:.1f}" if row.hours else "",
            f"{row.memory / GB:.0f}" if row.memory else "",
            *fits,
            f"{row.kept / GB:.0f}" + (f" (+{row.meanwhile / GB:.0f})" if row.meanwhile else ""),
        )
    features = max((_feature_bytes(step.settings()) for step in config.steps), default=0.0)
    downloads = sum(resource.gigabytes or 0 for resource in _weights(config)) * GB
    hours = sum(row.hours or 0 for row in rows)
    disk = sum(row.kept for row in rows) + max(row.meanwhile for row in rows) + features + downloads
    table.add_section()
    table.add_row("all", f"{hours:.1f}", "", *[""] * len(GPUS), f"{disk / GB:.0f}")
    console.print(table)
    # What is to be copied stands on lines of its own, which nothing breaks.
    listed = ["(+n): meanwhile, while the step runs", "", "Commands, in this order:"]
    listed += [f"\n# {step.name}\n{command_line(step, config)}" for step in config.steps]
    listed += ["", "Downloads:"]
    for resource in (*DATASETS.values(), *_weights(config)):
        size = f"{resource.gigabytes:g} GB" if resource.gigabytes else "the publisher does not say how large"
        listed.append(f"  {resource.name}, {size}; {resource.licence}\n    {resource.place}")
    for line in (
        *listed,
        "",
        f"disk: in it, downloads of weights {downloads / GB:.0f} GB, cached features up to {features / GB:.0f} GB; the "
        "datasets themselves come on top",
        f"build: {_TRIPLETS:,} points and the reserve; {BUILD_ASSUMPTIONS}",
        TRAINING_ASSUMPTIONS,
        f"evaluation: {_TEST_POINTS:,} points, {_ANSWER_TOKENS} tokens a description, batches of {_BATCH}",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _plan(step: StepOfReproduction, settings: Any) -> _Row:
    if step.run == "build":
        return _build(settings)
    if step.run == "convert-omg-llava":
        return _Row(kept=(RELEASE.gigabytes or 0) * GB)
    if step.run in _KINDS:
        plan = plan_stage(settings, _KINDS[step.run])
        if plan is None:
            return _Row(hours=None)
        return _Row(plan.hours, plan.memory, plan.model_bytes, plan.checkpoint_bytes)
    if step.run == "evaluate":
        points = min(settings.limit or _TEST_POINTS, _TEST_POINTS)
        described = sum(
            source.descriptor is not None or source.backend is not None for source in settings.sets.values()
        )
        seconds = points / _BATCH * (described * _ANSWER_TOKENS * DECODER_STEP + len(settings.sets) * 2.0)
        return _Row(seconds / 3600, 40 * GB)
    return _Row()


def _build(config: BuildConfig) -> _Row:
    budget = plan_budget(config, round(_TRIPLETS * (1 + config.sampling.reserve)))
    known = [step.seconds for step in budget if step.seconds is not None]
    largest = GPUS["80 GB"]
    memory = max((min(step.memory.total, largest * step.memory.share) for step in budget if step.memory), default=0)
    return _Row(sum(known) / 3600, memory, _DATASET_BYTES)


def _feature_bytes(settings: Any) -> float:
    features = getattr(settings, "features", None)
    return features.limit_gb * GB if features is not None else 0.0


def _weights(config: ReproduceConfig) -> list[Any]:
    build = next((step.settings() for step in config.steps if step.run == "build"), None)
    if build is None:
        return [RELEASE]
    train = TrainConfig(output=Path("unused"), dataset="unused")
    found = find_resources(config, build, train, cached=lambda *_: False)
    return [entry.resource for entry in found if entry.resource.kind == "weights"]
