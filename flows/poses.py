"""``poses``, the flow of ``make poses``: does an answerer look at the image when it is asked for a keypoint by name?

Draws the categories of MP-100, trains the tiny answerer and a twin that never sees an image at equal steps, and judges
both on fresh images of trained categories and on categories that neither has seen. Interrupted and run again, it goes
on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from talking_points.bfloat16 import computes_bfloat16
from talking_points.config import load_config
from talking_points.evaluation.pose_tables import pose_table
from talking_points.models.model_folders import check_model
from talking_points.sources.drawn import drawn_roots
from talking_points.training.answerer_config import AnswererConfig
from talking_points.whole_files import write_json, write_text
from tasks.learn import JobProcesses, run_job
from tasks.learn_jobs import Result
from tasks.pose_jobs import TEST_OBJECTS, figures_of, pose_jobs, scenes
from tasks.running.run_form import AtLeastOne
from tasks.running.run_page import end_run, last_part, name_run, tag_run

PROCESSES = 2
"""With one thread each, which two cores serve better than two threads."""

WAITING: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=16)
"""Threads that wait for a process; more than there are jobs."""

BF16 = ("answerer.bf16", "pose_vision.bf16", "vision.backbone_bf16", "localizer.bf16")
"""Settings of ``configs/train/poses.yaml`` that pay only on a CPU with instructions for bfloat16."""

FLOORS = {"seen": 15.0, "held_out": 8.0}
"""By how many points of PCK@0.1 the sighted model is to be ahead, with an interval that excludes 0."""


def describe_poses(parameters: Mapping[str, Any]) -> str:
    """Output and size of a run, e.g. ``poses: 3,000 images``."""
    return f"{last_part(parameters['output'])}: {parameters['images']:,} images"


@flow(
    name="poses",
    persist_result=False,
    flow_run_name=name_run(describe_poses),
    validate_parameters=False,
    task_runner=WAITING,
)
def poses(
    output: str = "build/poses",
    images: AtLeastOne = 3000,
    objects: AtLeastOne = TEST_OBJECTS,
    overrides: list[str] | None = None,
    all_ways: bool = False,
    localizer: str | None = None,
) -> dict[str, Any]:
    """Run everything into ``output`` and return the report.

    Args:
        output: folder of the run; run again, or retried, it goes on from what is there.
        images: drawn images to train on and, of other categories, to test on.
        objects: at most so many for each figure.
        overrides: ``key=value`` settings of the training configuration.
        all_ways: also train an answerer with a head for coordinates and a localizer on the same keypoints.
        localizer: folder of a Point Localizer that is asked as it is, for example ``build/learn/train/localizer``.
    """
    start, folder = time.monotonic(), Path(output)
    config = poses_config(folder, overrides or [])
    tag_run("poses")
    os.environ["TQDM_DISABLE"] = "1"
    made: dict[str, PrefectFuture[Result]] = {}
    others = {"localizer as it is": localizer} if localizer else {}
    if localizer:
        check_model(localizer, "localizer", "localizer")
    with JobProcesses(PROCESSES) as processes:
        for job in pose_jobs(config, folder, images, objects, all_ways, others):
            needed = [made[name] for name in job.after]
            made[job.name] = run_job.submit(job, processes, wait_for=needed, return_state=False)
        results = {name: future.result() for name, future in made.items()}
    report = figures_of(results)
    for name, found in report["sighted_minus_blind"].items():
        found["floor"] = FLOORS[name]
        found["reached"] = found["difference"] >= FLOORS[name] and found["interval"][0] > 0
    report |= {"images": images, "seconds": round(time.monotonic() - start, 1)}
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", table(report))
    ahead = report["sighted_minus_blind"]["seen"]["difference"]
    return end_run(f"sighted {ahead:+.1f} points ahead of blind on seen categories", report)


def poses_config(output: Path, overrides: list[str]) -> AnswererConfig:
    """``configs/train/poses.yaml`` for this run."""
    given = [f"output={output / 'train'}", f"poses.root={drawn_roots(scenes(output))['mp100']}"]
    given.append(f"features.folder={output / 'features'}")
    if not computes_bfloat16():
        given += [f"{name}=false" for name in BF16]
    return load_config(AnswererConfig, "configs/train/poses.yaml", [*given, *overrides])


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown: the floors, then every way on seen and on new categories."""
    lines = ["| sighted less blind, PCK@0.1 | points | 95 % | floor | reached |", "|---|---|---|---|---|"]
    for name, found in report["sighted_minus_blind"].items():
        low, high = found["interval"]
        reached = "yes" if found["reached"] else "no"
        lines.append(
            f"| {name} | {found['difference']:+.1f} | {low:+.1f} to {high:+.1f} | {found['floor']:+.0f} | {reached} |"
        )
    lines += [
        "",
        f"The middle of the visual token that is named is near {report['oracle'] or 0:.1f} % of keypoints.",
        "",
    ]
    titled = {"seen": "Trained categories in new drawings", "new": "Other categories"}
    both = {"partitions": [report[name] | {"title": title} for name, title in titled.items()], "mean": {}}
    return "\n".join(lines) + "\n" + pose_table(both)
