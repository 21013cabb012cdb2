"""Commands that train and evaluate: the flows of the deployments, run here and now."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from commands.console import Config, Overrides, Verbose, app, exit_codes, needs_extra
from commands.local import local_orchestration
from talking_points.config import ConfigError, load_config

TINY = "configs/train/tiny.yaml"


@app.command("train-localizer")
def train_localizer(config: Config = TINY, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Train the Point Localizer: image + text -> x, y."""
    _run("train_localizer", config, overrides, verbose)


@app.command("train-descriptor")
def train_descriptor(config: Config = TINY, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Train the Point Descriptor: image + point -> text."""
    _run("train_descriptor", config, overrides, verbose)


@app.command("adapt-descriptor")
def adapt_descriptor(config: Config = TINY, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Adapt a trained descriptor with GRPO to categories without descriptions."""
    _run("adapt_descriptor", config, overrides, verbose)


@app.command("train-answerer")
def train_answerer(
    config: Config = "configs/train/answerer.yaml",
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print parameters, memory and hours")] = False,
    verbose: Verbose = False,
) -> None:
    """Train the Point Answerer: image + box + name and description of a keypoint -> x, y, as text."""
    if dry_run:
        with exit_codes():
            with needs_extra("train"):
                from talking_points.training.answerer_config import AnswererConfig
                from talking_points.training.answerer_plan import plan_training
            settings = load_config(AnswererConfig, config, overrides or [])
            if settings.preset == "tiny":
                raise ConfigError("--dry-run is for the presets small and paper: expected one of them, found tiny")
            print(plan_training(settings))
        return
    _run("train_answerer", config, overrides, verbose)


@app.command("evaluate-poses")
def evaluate_poses(
    config: Config = "configs/evaluate/poses.yaml", overrides: Overrides = None, verbose: Verbose = False
) -> None:
    """Score an answerer on named keypoints of new categories: PCK, controls, known and new names, tables."""
    _run("evaluate_poses", config, overrides, verbose)


@app.command()
def evaluate(
    config: Config = "configs/evaluate/triplets.yaml", overrides: Overrides = None, verbose: Verbose = False
) -> None:
    """Score sets of descriptions by where the localizer finds them: PCK, mPCK, controls, comparisons, tables."""
    _run("evaluate", config, overrides, verbose)


@app.command("retrain-and-evaluate")
def retrain_and_evaluate(
    config: Config = "configs/train/retrain.yaml", overrides: Overrides = None, verbose: Verbose = False
) -> None:
    """Train a challenger on the current dataset and promote it when it beats the champion."""
    _run("retrain_and_evaluate", config, overrides, verbose)


@app.command("restore-champion")
def restore_champion(config: Config = "configs/train/retrain.yaml", overrides: Overrides = None) -> None:
    """Make the champion before the current one the champion again; prints which run that is."""
    with exit_codes():
        with needs_extra("train"):
            from talking_points.evaluation.retraining import RetrainConfig, restore_previous
        restored = restore_previous(load_config(RetrainConfig, config, overrides or []).folder)
    print(json.dumps(restored))


def _run(name: str, config: str, overrides: list[str] | None, verbose: bool) -> None:
    """Run the flow ``name`` of the module ``flows.<name>``; the last line on stdout is its result as JSON."""
    from commands.orchestrator import claim_port, orchestrator

    local_orchestration(verbose)
    with exit_codes():
        # Wrong input is found before what takes seconds: importing the models, starting the orchestrator.
        with needs_extra("train"):
            kind, check = _inputs(name)
        check(load_config(kind, config, overrides or []))
        port = claim_port()
        with needs_extra("train"):
            flow = getattr(importlib.import_module(f"flows.{name}"), name)
        with orchestrator(port):
            result = flow(config, overrides or [])
    print(json.dumps(result))


def _inputs(name: str) -> tuple[type[Any], Callable[[Any], None]]:
    """The kind of configuration that a flow takes, and what looks whether all is there that it names."""
    if name == "evaluate":
        from talking_points.evaluation.config import EvaluateConfig
        from talking_points.evaluation.inputs import check_evaluation

        return EvaluateConfig, check_evaluation
    if name == "retrain_and_evaluate":
        from talking_points.evaluation.retraining import RetrainConfig, check_retraining

        return RetrainConfig, check_retraining
    if name == "train_answerer":
        from talking_points.training.answerer_config import AnswererConfig
        from talking_points.training.answerer_inputs import check_answerer

        return AnswererConfig, check_answerer
    if name == "evaluate_poses":
        from talking_points.evaluation.pose_config import EvaluatePosesConfig
        from talking_points.evaluation.pose_inputs import check_poses

        return EvaluatePosesConfig, check_poses
    from talking_points.training.config import TrainConfig
    from talking_points.training.inputs import check_adaptation, check_training

    return TrainConfig, check_adaptation if name == "adapt_descriptor" else check_training
