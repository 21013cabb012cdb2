"""``outlines``, the flow of ``make outlines``: does a model learn to draw what it is asked for, and does reward help?

Draws scenes, asks about their objects, trains the tiny segmenter, refines it with three seeds, gives each a control of
more supervised training for the same CPU time, and judges all of them on fresh scenes. Interrupted and run again, it
goes on.
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

from flows.build_instructions import build_instructions
from talking_points.bfloat16 import computes_bfloat16
from talking_points.config import load_config
from talking_points.evaluation.outline_floors import judge_outlines, outlines_table
from talking_points.sources.drawn import drawn_roots
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.whole_files import write_json, write_text
from tasks.learn import JobProcesses, run_job
from tasks.learn_jobs import SOURCES, Result, draw_once
from tasks.outline_jobs import figures_of, instructions, outline_jobs, scenes
from tasks.running.run_form import AtLeastOne
from tasks.running.run_page import end_run, last_part, name_run, tag_run

PROCESSES = 2
"""With one thread each, which two cores serve better than two threads."""

WAITING: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=16)
"""Threads that wait for a process; more than there are jobs."""

QUESTIONS = (
    "split.train_parts=11",
    "split.test_parts=1",
    "instructions.rows=2",
    "instructions.kinds={text_to_mask: 6, point_to_mask: 2, text_to_box: 1}",
)
"""Most questions are for outlines by words; a twelfth of the images is held out."""


def describe_outlines(parameters: Mapping[str, Any]) -> str:
    """Output and size of a run, e.g. ``outlines: 6,000 images``."""
    return f"{last_part(parameters['output'])}: {3 * parameters['images']:,} images"


@flow(
    name="outlines",
    persist_result=False,
    flow_run_name=name_run(describe_outlines),
    validate_parameters=False,
    task_runner=WAITING,
)
def outlines(
    output: str = "build/outlines",
    images: AtLeastOne = 1500,
    questions: AtLeastOne = 400,
    overrides: list[str] | None = None,
) -> dict[str, Any]:
    """Run everything into ``output`` and return the report.

    Args:
        output: folder of the run; run again, or retried, it goes on from what is there.
        images: drawn images of each of three sources, a twelfth of them held out; as many for the vision path.
        questions: at most so many held-out ones to judge on.
        overrides: ``key=value`` settings of the training configuration.
    """
    start, folder = time.monotonic(), Path(output)
    config = outlines_config(folder, overrides or [])
    tag_run("outlines")
    os.environ["TQDM_DISABLE"] = "1"
    made: dict[str, PrefectFuture[Result]] = {}
    with JobProcesses(PROCESSES) as processes:
        for job in outline_jobs(config, folder, images, questions, build_scenes):
            needed = [made[name] for name in job.after]
            made[job.name] = run_job.submit(job, processes, wait_for=needed, return_state=False)
        found = figures_of({name: future.result() for name, future in made.items()})
    report = {**judge_outlines(found["figures"]), **found}
    report |= {"images": 3 * images, "seconds": round(time.monotonic() - start, 1)}
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", outlines_table(report))
    overlap = report["figures"]["splits"]["test"]["res"]["giou"]
    return end_run(f"{overlap:.1f} gIoU, {report['gain']['mean']:+.1f} by reward over more supervised training", report)


def build_scenes(output: Path, images: int, seed: int) -> None:
    """Draw scenes and build the questions about them as ``configs/build/instructions_plain.yaml`` says."""
    draw_once(scenes(output, "instructions"), images, "plain", seed, SOURCES)
    roots = drawn_roots(scenes(output, "instructions"))
    settings = [f"output={instructions(output)}", *(f"sources.{name}.root={roots[name]}" for name in SOURCES)]
    build_instructions("configs/build/instructions_plain.yaml", [*settings, *QUESTIONS, f"seed={seed}"])


def outlines_config(output: Path, overrides: list[str]) -> SegmenterConfig:
    """``configs/train/outlines.yaml`` for this run."""
    roots = drawn_roots(scenes(output, "vision"))
    given = [
        f"output={output / 'train'}",
        f"instructions.root={instructions(output)}",
        f"features.folder={output / 'features'}",
        *(f"segmenter_vision.sources.{name}={roots[name]}" for name in SOURCES),
    ]
    if not computes_bfloat16():
        given += ["segmenter.bf16=false", "refine.bf16=false", "segmenter_vision.backbone_bf16=false"]
    return load_config(SegmenterConfig, "configs/train/outlines.yaml", [*given, *overrides])
