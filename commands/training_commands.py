"""Commands that train and evaluate: the flows of the deployments, run here and now."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any

import typer

from commands.console import KEPT, Config, Overrides, Verbose, app, exit_codes, needs_extra
from commands.local import local_orchestration
from talking_points.config import load_config
from talking_points.owners import refuse_closed
from talking_points.terminal import show_json, tell

TINY = "configs/train/tiny.yaml"
DryRun = Annotated[bool, typer.Option("--dry-run", help="check everything that is quickly checked and print the plan")]


@app.command("train-localizer")
def train_localizer(
    config: Config = TINY, overrides: Overrides = None, dry_run: DryRun = False, verbose: Verbose = False
) -> None:
    """Train the Point Localizer: image + text -> x, y."""
    _run("train_localizer", config, overrides, verbose, dry_run)


@app.command("train-descriptor")
def train_descriptor(
    config: Config = TINY, overrides: Overrides = None, dry_run: DryRun = False, verbose: Verbose = False
) -> None:
    """Train the Point Descriptor: image + point -> text."""
    _run("train_descriptor", config, overrides, verbose, dry_run)


@app.command("adapt-descriptor")
def adapt_descriptor(
    config: Config = TINY, overrides: Overrides = None, dry_run: DryRun = False, verbose: Verbose = False
) -> None:
    """Adapt a trained descriptor with GRPO to categories without descriptions."""
    _run("adapt_descriptor", config, overrides, verbose, dry_run)


@app.command("train-answerer")
def train_answerer(
    config: Config = "configs/train/answerer.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Train the Point Answerer: image + box + name and description of a keypoint -> x, y, as text."""
    _run("train_answerer", config, overrides, verbose, dry_run)


@app.command("evaluate-poses")
def evaluate_poses(
    config: Config = "configs/evaluate/poses.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Score an answerer on named keypoints of new categories: PCK, controls, known and new names, tables."""
    _run("evaluate_poses", config, overrides, verbose, dry_run)


@app.command("describe-keypoints")
def describe_keypoints(
    config: Config = "configs/describe/keypoints.yaml", overrides: Overrides = None, verbose: Verbose = False
) -> None:
    """Describe every keypoint in words: by rules, by a language model, or by our descriptor on one marked image."""
    _run("describe_keypoints", config, overrides, verbose, False)


@app.command("write-pose-rows")
def write_pose_rows(config: Config = "configs/describe/pose_rows.yaml", overrides: Overrides = None) -> None:
    """Write named keypoints as rows of a dataset, from which a localizer can learn to find them."""
    with exit_codes():
        with needs_extra("train"):
            from talking_points.examples import pose_rows
        settings = load_config(pose_rows.PoseRowsConfig, config, overrides or [])
        refuse_closed(settings.output, "data")
        show_json({"output": str(settings.output), "rows": pose_rows.write_pose_rows(settings)})


@app.command("train-segmenter")
def train_segmenter(
    config: Config = "configs/train/segment_tiny.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Train a segmenter: image + words, point or box -> outlines, as text (supervised)."""
    _run("train_segmenter", config, overrides, verbose, dry_run)


@app.command("refine-segmenter")
def refine_segmenter(
    config: Config = "configs/train/segment_tiny.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Refine a trained segmenter by the overlap of what it draws (GSPO)."""
    _run("refine_segmenter", config, overrides, verbose, dry_run)


@app.command("evaluate-segmentation")
def evaluate_segmentation(
    config: Config = "configs/evaluate/segment_parts.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Score a segmenter: cIoU, gIoU, precision, boxes, how answers are written, controls, the published table."""
    _run("evaluate_segmentation", config, overrides, verbose, dry_run)


@app.command()
def evaluate(
    config: Config = "configs/evaluate/triplets.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Score sets of descriptions by where the localizer finds them: PCK, mPCK, controls, comparisons, tables."""
    _run("evaluate", config, overrides, verbose, dry_run)


@app.command("retrain-and-evaluate")
def retrain_and_evaluate(
    config: Config = "configs/train/retrain.yaml",
    overrides: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Train a challenger on the current dataset and promote it when it beats the champion."""
    _run("retrain_and_evaluate", config, overrides, verbose, dry_run)


@app.command("restore-champion")
def restore_champion(config: Config = "configs/train/retrain.yaml", overrides: Overrides = None) -> None:
    """Make the champion before the current one the champion again; prints which run that is."""
    with exit_codes():
        from talking_points.evaluation.champions import restore_previous
        from talking_points.evaluation.retraining_config import RetrainConfig

        restored = restore_previous(load_config(RetrainConfig, config, overrides or []).folder)
    show_json(restored)


def _run(name: str, config: str, overrides: list[str] | None, verbose: bool, dry_run: bool) -> None:
    """Run the flow ``name`` of the module ``flows.<name>``; the last line on stdout is its result as JSON.

    ``dry_run`` checks what can be checked and prints the plan instead.
    """
    from commands.orchestrator import claim_port, orchestrator

    local_orchestration(verbose)
    loaded: dict[str, Callable[..., dict[str, Any]]] = {}

    def load() -> None:
        with needs_extra("train"):
            if name not in _WITHOUT_TORCH:
                from talking_points.models.loading_bars import hide_loading_bars

                hide_loading_bars()
                importlib.import_module("talking_points.models.base")  # torch, while the orchestrator starts
            loaded[name] = getattr(importlib.import_module(f"flows.{name}"), name)

    with exit_codes(KEPT):
        tell(f"{name.replace('_', '-')}: checking configuration and inputs")
        # Wrong input is found before what takes seconds: importing the models, starting the orchestrator.
        with needs_extra("train"):
            kind, check = map(_load, _INPUTS.get(name, _TRAINS))
        settings = load_config(kind, config, overrides or [])
        refuse_closed(getattr(settings, "output", None) or settings.folder)
        check(settings)
        if dry_run:
            with needs_extra("train"):
                from commands.training_plan import print_training_plan

            print_training_plan(name, settings)
            return
        with orchestrator(claim_port(), load):
            result = loaded[name](config, overrides or [])
    show_json(result)


_INPUTS = {
    "evaluate": ("evaluation.config:EvaluateConfig", "evaluation.inputs:check_evaluation"),
    "retrain_and_evaluate": (
        "evaluation.retraining_config:RetrainConfig",
        "evaluation.retraining_config:check_retraining",
    ),
    "adapt_descriptor": ("training.config:TrainConfig", "training.inputs:check_adaptation"),
    "train_answerer": ("training.answerer_config:AnswererConfig", "training.answerer_inputs:check_answerer"),
    "describe_keypoints": (
        "examples.keypoint_authors:DescribeKeypointsConfig",
        "examples.keypoint_authors:check_description_inputs",
    ),
    "train_segmenter": (
        "training.segmenter_config:SegmenterConfig",
        "training.segmenter_inputs:check_segmenter",
    ),
    "refine_segmenter": (
        "training.segmenter_config:SegmenterConfig",
        "training.segmenter_inputs:check_refinement",
    ),
    "evaluate_segmentation": (
        "evaluation.segmentation_config:EvaluateSegmentationConfig",
        "evaluation.segmentation_config:check_segmentation",
    ),
    "evaluate_poses": ("evaluation.pose_config:EvaluatePosesConfig", "evaluation.pose_inputs:check_poses"),
}
"""Flow -> the configuration that it takes, and what looks whether all is there that it names."""
_WITHOUT_TORCH = ("describe_keypoints",)
"""Flows that need it for some of their settings only."""
_TRAINS = ("training.config:TrainConfig", "training.inputs:check_training")


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(f"talking_points.{module}"), name)
