"""What ``make learn`` does, as jobs: scenes and their datasets, trainings, figures.

Prefect is not imported here: every job runs in a process of its own, which need not pay for it. What needs torch is
imported when jobs are made or run, so that wrong settings are told without it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from talking_points.examples.bare_points import load_bare_points
from talking_points.parents import end_with_parent
from talking_points.regular_files import read_text
from talking_points.sources.drawn import draw_sample
from talking_points.training.config import TrainConfig
from tasks.model_cards import train_with_card

SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet")

Result = dict[str, Any]
BuildScenes = Callable[[Path, str, int], None]

TEST_POINTS = 1200
"""Held-out points that figures are taken on: an mPCK of 80 is then known to about 1."""


@dataclass(frozen=True)
class Job:
    """``work()`` is to be called once the jobs named in ``after`` are done. It must be picklable."""

    name: str
    work: Callable[[], Result]
    after: tuple[str, ...] = ()


def plan_jobs(config: TrainConfig, output: Path, images: int, quick: bool, build_scenes: BuildScenes) -> list[Job]:
    """All jobs of a run, what others wait for longest first; a quick run has no second judge and no ablations.

    ``build_scenes(output, variant, images)`` draws scenes of each source and builds their dataset.
    """
    from talking_points.evaluation.learning import hard_figures, measure_trained

    # The vision path has images of its own: what it says of the dataset's is then nothing that it knows by heart, and
    # it need not wait for the dataset.
    drawn = partial(draw_once, sample_folder(output, "vision"), images, "plain", 1, SOURCES)
    jobs = [
        _other(config, "vision-scenes", drawn),
        _make_training(config, "vision", "vision", "vision-scenes"),
        _other(config, "scenes", partial(build_scenes, output, "plain", images)),
    ]
    seen = ("vision", "scenes")
    if quick:
        jobs += [
            # The features of the images that the descriptor computes are then there for the localizer.
            _make_training(config, "descriptor", "descriptor", *seen),
            _make_training(config, "localizer", "localizer", *seen),
            _make_training(config.text_only(), "text-only", "localizer", "scenes"),
        ]
    else:
        plain = _replace_model(config, "descriptor", keypoint_mask="predicted")
        # Without a point there is little to learn: a quarter of the steps reach it.
        few = max(1, (config.descriptor.max_steps or 0) // 4)
        nowhere = _replace_section(plain, "descriptor", withhold_points=True, max_steps=few)
        frozen = _replace_model(config, "localizer", train_language_model=False, train_vocabulary=False)
        second = config.model_copy(update={"seed": config.seed + 1})
        jobs += [
            _make_training(config.text_only(), "text-only", "localizer", "scenes"),
            _other(config, "hard-scenes", partial(build_scenes, output, "hard", max(12, images // 4)), "scenes"),
            _make_training(config, "descriptor", "descriptor", *seen),
            _make_training(plain, "no-gaussian", "descriptor", *seen),
            _make_training(config, "localizer", "localizer", *seen),
            _make_training(second, "judge-b", "localizer", *seen),
            _make_training(frozen, "frozen-lm", "localizer", *seen),
            _make_training(nowhere, "no-location", "descriptor", *seen),
        ]
    made = [job.name for job in jobs]
    judges = ("localizer",) if quick else ("localizer", "judge-b")
    adapted = name_adapted(quick)
    for seed, name in enumerate(adapted):
        own = config.model_copy(update={"seed": seed})
        jobs.append(_make_training(own, name, "adapted", "descriptor", "localizer"))
    figures = partial(measure_trained, config, count=TEST_POINTS, second_judge=not quick, ablations=not quick)
    jobs.append(_other(config, "figures", figures, *made))
    for name in ("descriptor", *adapted):
        jobs.append(_other(config, scores_of(name), partial(score_family, config, name, not quick), name, *judges))
    if not quick:
        hard = partial(hard_figures, config, dataset=dataset_folder(output, "hard"), count=TEST_POINTS)
        jobs.append(_other(config, "hard-figures", hard, "hard-scenes", "localizer", "text-only", "no-location"))
    return jobs


def sample_folder(output: Path, variant: str = "plain") -> Path:
    """Where the scenes of a run are drawn."""
    return output / f"sample-{variant}"


def dataset_folder(output: Path, variant: str = "plain") -> Path:
    """Where their dataset is built."""
    return output / f"dataset-{variant}"


def name_adapted(quick: bool) -> list[str]:
    """The adapted descriptors of a run, one for each seed."""
    return [f"adapted-{seed}" for seed in range(1 if quick else 3)]


def scores_of(descriptor: str) -> str:
    """Name of the job that takes a descriptor's figures on the family that adaptation never sees."""
    return f"scores of {descriptor}"


def draw_once(sample: Path, images: int, variant: str, seed: int, sources: Collection[str]) -> None:
    """Draw scenes, unless the same ones are there already."""
    marker, wanted = sample / ".drawn", f"{images} {variant} {seed}"
    if not marker.exists() or read_text(marker) != wanted:
        marker.unlink(missing_ok=True)  # what is interrupted is drawn again
        draw_sample(sample, images, seed, variant=variant, sources=sources)
        marker.write_text(wanted)


def score_family(config: TrainConfig, descriptor: str, second_judge: bool) -> dict[str, float]:
    """What a descriptor of the run, adapted or not, reaches on the family of animals that adaptation never saw."""
    from talking_points.evaluation.learning import Judges, adaptation_scores

    tested = config.keypoints.model_copy(update={"categories": config.keypoints.test_categories})
    family = load_bare_points(tested, tested.limit, config.seed)
    return adaptation_scores(family, config.output / descriptor, Judges.of_run(config, second=second_judge))


def _make_training(config: TrainConfig, name: str, kind: str, *after: str) -> Job:
    return Job(name, partial(train_with_card, kind, config, name), after)


def _other(config: TrainConfig, name: str, work: Callable[[], Any], *after: str) -> Job:
    return Job(name, partial(time_work, work, config.threads), after)


def time_work(work: Callable[[], Any], threads: int | None) -> Result:
    """A job that trains nothing, in the form of those that do; what it found is ``found``."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    began, start = time.monotonic(), os.times()
    found = work()
    seconds, cpu_seconds = time.monotonic() - began, sum(os.times()[:4]) - sum(start[:4])
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "metrics": {}, "found": found}


def _replace_section(config: TrainConfig, section: str, **fields: Any) -> TrainConfig:
    """The configuration with other fields in one section."""
    return config.model_copy(update={section: getattr(config, section).model_copy(update=fields)})


def _replace_model(config: TrainConfig, section: str, **choices: Any) -> TrainConfig:
    """The configuration with other choices for the model of one section, beside those that it has."""
    return _replace_section(config, section, model={**getattr(config, section).model, **choices})


def measure_job(job: Job) -> Result:
    """What a job returned and ``process_cpu_seconds``, which its process and the children it waited for have used."""
    return job.work() | {"process_cpu_seconds": sum(os.times()[:4])}


def begin_process() -> None:
    """What several processes write would be mixed up; values and curves are in the stages' folders. None of them
    outlives its run: it would go on for minutes, and hold what the next run wants to make.
    """
    end_with_parent()
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
