"""``--dry-run`` of the commands that train and evaluate: everything that is quickly checked, and what it would take.

Nothing is written, downloaded or loaded.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from talking_points.config import ConfigError
from talking_points.evaluation.config import DescriptionSet, EvaluateConfig
from talking_points.evaluation.plan import ASSUMPTION, evaluation_downloads, plan_evaluation
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.examples.pose_files import open_poses
from talking_points.instructions.rows import read_instructions
from talking_points.redacted_console import RedactedConsole
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.config import TrainConfig
from talking_points.training.plan import (
    ASSUMPTIONS,
    StagePlan,
    downloads,
    model_size,
    plan_training,
    stage_state,
    steps_of,
)
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.units import format_duration, format_size

_KINDS = {"train_localizer": "localizer", "train_descriptor": "descriptor", "adapt_descriptor": "adapted"}


def print_training_plan(flow: str, settings: Any) -> None:
    """Print the plan of the flow ``flow`` under its settings. Raises what the flow would raise of wrong input."""
    console = RedactedConsole(highlight=False)
    if flow == "evaluate":
        _print_evaluation(console, settings)
    elif flow == "retrain_and_evaluate":
        train: TrainConfig = settings.train
        stages = [
            *plan_training("localizer", train),
            *plan_training("localizer", train.text_only()),
            *plan_training("descriptor", train)[-1:],
        ]
        _print_training(console, train, stages, ("localizer", "descriptor"), settings.folder)
        _note(console, "then challenger and champion are evaluated on the same test points")
    elif flow in _PLACES:
        _PLACES[flow](console, settings)
        _room(console, settings.output)
    else:
        kind = _KINDS[flow]
        _print_training(console, settings, plan_training(kind, settings), (kind,), settings.output)


def _print_training(
    console: Console, config: TrainConfig, stages: Sequence[StagePlan], kinds: Sequence[str], output: Path
) -> None:
    table = _table("stage", "points>", "steps>", "samples>", "time>", "state")
    for stage in stages:
        _add(
            table,
            stage.name,
            "" if stage.name == "vision" else _count(stage.points),
            _count(stage.steps),
            _count(stage.samples),
            _time(stage.hours),
            stage.state,
        )
    known = [stage.hours for stage in stages if stage.hours is not None]
    if len(stages) > 1 and len(known) == len(stages):
        table.add_section()
        _add(table, "all", "", "", "", _time(sum(known)), "")
    console.print(table)
    for kind in kinds:
        size = model_size(kind, config)
        images = max((stage.points or 0 for stage in stages), default=0)
        counted = "" if size.exact else "about "
        where = "of a GPU" if config.preset == "paper" else "of this machine"
        what = "adaptation" if kind == "adapted" else kind
        _note(console, f"memory for the {what}: {counted}{format_size(size.memory)} {where}")
        _note(console, f"disk for the {what}: at most {format_size(size.disk(config, images))}, features included")
    _downloads(console, downloads(config))
    _note(console, ASSUMPTIONS[config.preset])
    _room(console, output)


def _print_evaluation(console: Console, config: EvaluateConfig) -> None:
    table = _table("set", "described by", "points>", "passes>", "time>")
    for row in plan_evaluation(config):
        _add(table, row.name, row.author, _count(row.points), str(row.passes), _time(row.hours))
    console.print(table)
    control = config.text_only or "left out"
    _note(console, f"localizer {config.localizer}, control that never sees an image: {control}")
    asked = [name for name, source in config.sets.items() if source != DescriptionSet() and source.backend]
    for name in asked:
        _note(console, f"{name}: one request for every point")
    _downloads(console, evaluation_downloads(config))
    _note(console, ASSUMPTION)
    _room(console, config.output)


def _answerer(console: Console, config: AnswererConfig) -> None:
    if config.preset != "tiny":
        from talking_points.training.answerer_plan import plan_training as plan_answerer

        console.print(plan_answerer(config))
        return
    stage = config.answerer
    objects = open_poses(config.poses, "train", config.seed)
    rounds = sum(math.ceil(int(one.visible.sum()) / stage.k) for one in objects.examples)
    rows = [(stage.stage, "answerer", steps_of(stage, len(objects) if stage.pack_instance else rounds))]
    if config.pose_vision.steps:
        rows.insert(0, ("pose-vision", "pose_vision", config.pose_vision.steps))
    _stages(console, config, rows, f"{len(objects):,} objects, {rounds:,} conversations about them")


def _segmenter(console: Console, config: SegmenterConfig) -> None:
    questions = _questions(config.instructions.root, "train", config.segmenter.kinds, config.instructions.limit)
    rows = [("segmenter", "segmenter", steps_of(config.segmenter, questions))]
    vision = config.segmenter_vision
    if vision.backbone_steps:
        rows.insert(0, ("vision", "segmenter_vision", vision.steps + vision.backbone_steps))
    _stages(console, config, rows, f"{questions:,} questions to learn from")


def _refinement(console: Console, config: SegmenterConfig) -> None:
    questions = _questions(config.instructions.root, "train", config.refine.kinds, config.instructions.limit)
    rows = [("refined", "refined", steps_of(config.refine, questions))]
    told = f"{questions:,} questions, {config.refine.batch_size} in a rollout, {config.refine.group} answers to each"
    _stages(console, config, rows, told)


def _segmentation(console: Console, config: EvaluateSegmentationConfig) -> None:
    for split in config.splits:
        found = _questions(config.instructions, split, config.kinds, config.limit)
        _note(console, f"split {split}: {found:,} questions of the kinds {', '.join(config.kinds)}")
    models = ", ".join([config.model, *config.compare.values()])
    beside = "exchanged images, a blind answer" if config.controls else "a blind answer"
    _note(console, f"asked: {models}; beside them {beside}" + (", boxes in words" if config.boxes else ""))


def _poses(console: Console, config: EvaluatePosesConfig) -> None:
    for division in config.divisions:
        objects = open_poses(division, config.split, config.seed)
        points = sum(int(one.visible.sum()) for one in objects.examples)
        _note(console, f"partition {division.partition}: {len(objects):,} objects, {points:,} labelled keypoints")
    models = ", ".join([config.model, *([config.blind] if config.blind else []), *config.others.values()])
    _note(console, f"asked in the modes {', '.join(config.modes)}: {models}")


def _stages(console: Console, config: TrainConfig, rows: Sequence[tuple[str, str, int | None]], told: str) -> None:
    table = _table("stage", "steps>", "state")
    for name, kind, steps in rows:
        state, _ = stage_state(kind, config, config.output / name, steps)
        _add(table, name, _count(steps), state)
    console.print(table)
    _note(console, told)


def _questions(root: Path | None, split: str, kinds: Sequence[str], limit: int | None) -> int:
    assert root is not None
    rows = read_instructions(root, split, images=False)
    found = sum(1 for row in rows if not kinds or row.kind in kinds)
    if not found:
        raise ConfigError(f"split '{split}' of the instruction dataset {root} asks nothing of the kinds {kinds}")
    return min(found, limit or found)


_PLACES: dict[str, Callable[[Console, Any], None]] = {
    "train_answerer": _answerer,
    "train_segmenter": _segmenter,
    "refine_segmenter": _refinement,
    "evaluate_segmentation": _segmentation,
    "evaluate_poses": _poses,
}
"""Flows whose answers are keypoints or outlines: data counted, steps reckoned; hours are not known of them."""


def _downloads(console: Console, found: dict[str, int | None]) -> None:
    for what, size in found.items():
        if size == 0:
            _note(console, f"{what} is in the cache")
        else:
            known = "of a size that nobody tells from here" if size is None else format_size(size)
            _note(console, f"to download: {what}, {known}")
    if not found:
        _note(console, "to download: nothing")


def _room(console: Console, output: Path) -> None:
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    _note(console, f"output {output}, {format_size(shutil.disk_usage(folder).free)} free there")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*cells)


def _note(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)


def _count(value: int | None) -> str:
    return "not known yet" if value is None else f"{value:,}"


def _time(hours: float | None) -> str:
    return "not known yet" if hours is None else "" if hours == 0 else format_duration(hours * 3600)
