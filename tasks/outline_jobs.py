"""What ``make outlines`` does, as jobs: scenes and their instructions, trainings, figures.

Prefect is not imported here: every job runs in a process of its own, which need not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.training.made_once import read_finished
from talking_points.training.segmenter_config import SegmenterConfig
from tasks.learn_jobs import SOURCES, Job, Result, draw_once, time_work
from tasks.model_cards import train_with_card

SEEDS = 3
"""Reinforcements from the same supervised model."""

THREADS_ALONE = 2
"""Of the trainings that everything else waits for."""


def scenes(output: Path, use: str) -> Path:
    """Where the scenes for a use are drawn: ``vision``, or ``instructions``."""
    return output / f"scenes-{use}"


def instructions(output: Path) -> Path:
    """Where the instruction dataset of a run is."""
    return output / "instructions"


BuildInstructions = Callable[[Path, int, int], None]


def outline_jobs(
    config: SegmenterConfig, output: Path, images: int, questions: int, build_instructions: BuildInstructions
) -> list[Job]:
    """All jobs of a run, what others wait for longest first.

    ``build_instructions(output, images, seed)`` draws scenes of each source and builds questions about them. The vision
    path has images of its own, so that it knows none of those that are held out.

    The control of every reinforcement is more supervised training from the same model for the same CPU time.
    """
    judged = partial(_evaluate, config, output, questions)
    names = refined_names()
    alone = config.model_copy(update={"threads": THREADS_ALONE})
    jobs = [
        _other(config, "vision-scenes", partial(draw_once, scenes(output, "vision"), images, "plain", 1, SOURCES)),
        Job("vision", partial(train_with_card, "segmenter_vision", alone), ("vision-scenes",)),
        _other(config, "instructions", partial(build_instructions, output, images, config.seed)),
        Job("segmenter", partial(train_with_card, "segmenter", alone), ("vision", "instructions")),
    ]
    for seed, name in enumerate(names):
        own = config.model_copy(update={"seed": config.seed + seed})
        jobs.append(Job(name, partial(train_with_card, "refined", own, name), ("segmenter",)))
    for seed, name in enumerate(names):
        own = config.model_copy(update={"seed": config.seed + seed})
        jobs.append(Job(control_name(seed), partial(_continue, own, name, control_name(seed)), (name,)))
    compared = (*names, *(control_name(seed) for seed in range(SEEDS)))
    jobs.append(_other(config, "figures", judged, *compared))
    return jobs


def refined_names() -> list[str]:
    """The refined segmenters of a run, one for each seed."""
    return [f"refined-{seed}" for seed in range(SEEDS)]


def control_name(seed: int) -> str:
    """The control of the refined segmenter of this seed."""
    return f"continued-{seed}"


def _continue(config: SegmenterConfig, refined: str, name: str) -> Result:
    """More supervised training of the trained segmenter, for the CPU time of a reinforcement."""
    steps = config.control.max_steps or _steps_of_equal_time(config, refined)
    choices = {"max_steps": steps, "learning_rate": config.control.learning_rate}
    further = {
        "segmenter": config.segmenter.model_copy(update=choices),
        "start": str(config.output / "segmenter"),
        "segmenter_vision": config.segmenter_vision.model_copy(update={"backbone_steps": 0}),
    }
    return train_with_card("segmenter", config.model_copy(update=further), name) | {"steps": steps}


def _steps_of_equal_time(config: SegmenterConfig, refined: str) -> int:
    again = "remove the folder and run again"
    spent, supervised = (read_finished(config.output / name, again)["cpu_seconds"] for name in (refined, "segmenter"))
    assert config.segmenter.max_steps is not None
    return max(1, round(config.segmenter.max_steps * spent / max(supervised, 1e-6)))


def _evaluate(config: SegmenterConfig, output: Path, questions: int) -> dict[str, Any]:
    from talking_points.evaluation.segmentation import evaluate_segmentation

    folder = config.output
    compare = {name: str(folder / name) for name in (*refined_names(), *map(control_name, range(SEEDS)))}
    return evaluate_segmentation(
        EvaluateSegmentationConfig(
            output=output / "evaluation",
            model=str(folder / "segmenter"),
            compare=compare,
            instructions=instructions(output),
            phrasing=config.segmenter.phrasing,
            limit=questions,
            threads=config.threads,
            seed=config.seed,
        )
    )


def _other(config: SegmenterConfig, name: str, work: Any, *after: str) -> Job:
    return Job(name, partial(time_work, work, config.threads), after)


def figures_of(results: dict[str, Result]) -> dict[str, Any]:
    """The report of a run."""
    return {
        "figures": results["figures"]["found"],
        "stages": {
            name: {key: result[key] for key in ("seconds", "cpu_seconds", "metrics")}
            for name, result in results.items()
        },
    }
