"""``learn``, the flow of ``make learn``: does the whole system learn? From nothing to figures on two CPU cores.

Draws scenes, builds a dataset from them, trains localizers and a descriptor of the tiny preset from random weights,
adapts the descriptor on animals that it never saw, and writes ``report.json``. Interrupted and run again, it goes on.

The scenes are plain ones, and their places are put into coarse words: with fine words the text alone tells where a
point is, and nobody could say whether a localizer looked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.build_llamapointinpart import build_llamapointinpart
from talking_points.bfloat16 import computes_bfloat16
from talking_points.build_config import BuildConfig
from talking_points.config import load_config
from talking_points.sources.drawn import drawn_roots
from talking_points.step_progress import LINES_ONLY
from talking_points.training.config import TrainConfig
from talking_points.whole_files import write_json, write_text
from tasks.learn import JobProcesses, run_job
from tasks.learn_jobs import (
    SOURCES,
    Result,
    dataset_folder,
    draw_once,
    name_adapted,
    plan_jobs,
    sample_folder,
    scores_of,
)
from tasks.running.run_form import AtLeastOne
from tasks.running.run_page import end_run, last_part, name_run, tag_run

QUICK_SHARES = {
    "vision.backbone_steps": 0.6,
    "vision.steps": 0.32,
    "localizer.max_steps": 0.55,
    "descriptor.max_steps": 0.82,
    "adapt.max_steps": 0.4,
}
"""What a quick run keeps of the steps."""

PROCESSES = 2
"""With one thread each, which two cores serve better than two threads."""

WAITING: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=64)
"""Threads that wait for a process; more than there are jobs."""

BF16 = ("vision.backbone_bf16", "localizer.bf16", "descriptor.bf16")
"""Settings of ``configs/train/learn.yaml`` that pay only on a CPU with instructions for bfloat16."""


def describe_learning(parameters: Mapping[str, Any]) -> str:
    """Output and size of a run, e.g. ``learn: 1,800 images per source``."""
    quick = ", quick" if parameters.get("quick") else ""
    return f"{last_part(parameters['output'])}: {parameters['images']:,} images per source{quick}"


@flow(
    name="learn",
    persist_result=False,
    flow_run_name=name_run(describe_learning),
    validate_parameters=False,
    task_runner=WAITING,
)
def learn(
    output: str = "build/learn", quick: bool = False, images: AtLeastOne = 1800, overrides: list[str] | None = None
) -> dict[str, Any]:
    """Run everything into ``output`` and return the report.

    Args:
        output: folder of the run; run again, or retried, it goes on from what is there.
        quick: half of the images, fewer steps, no second judge, no ablations.
        images: drawn images per source.
        overrides: ``key=value`` settings of the training configuration.
    """
    start, folder = time.monotonic(), Path(output)
    images = images // 2 if quick else images
    config = learn_config(folder, quick, overrides or [])
    tag_run("learn", *(["quick"] if quick else []))
    os.environ["TQDM_DISABLE"] = os.environ[LINES_ONLY] = "1"
    made: dict[str, PrefectFuture[Result]] = {}
    with JobProcesses(PROCESSES) as processes:
        for job in plan_jobs(config, folder, images, quick, build_scenes):
            needed = [made[name] for name in job.after]
            made[job.name] = run_job.submit(job, processes, wait_for=needed, return_state=False)
        results = {name: future.result() for name, future in made.items()}
    report = make_report(results, config, images, quick)
    # The processes of the jobs are no children of this one.
    cpu_seconds = sum(os.times()[:4]) + sum(result["process_cpu_seconds"] for result in results.values())
    report |= {"seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(cpu_seconds, 1)}
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", table(report))
    return end_run(f"localizer {report['localizer_gt']:.1f} mPCK, text-only {report['text_only']:.1f}", report)


def build_scenes(output: Path, variant: str, images: int) -> None:
    """Draw ``images`` scenes of each source and build their dataset as ``configs/build/<variant>.yaml`` says."""
    config, sample = f"configs/build/{variant}.yaml", sample_folder(output, variant)
    sources = tuple(load_config(BuildConfig, config).open_sources)
    # Adaptation takes its animals from the plain scenes.
    draw_once(sample, images, variant, 0, (*sources, "ap10k") if variant == "plain" else sources)
    roots = drawn_roots(sample)
    settings = [f"sources.{name}.root={roots[name]}" for name in sources]
    build_llamapointinpart(config, [f"output={dataset_folder(output, variant)}", *settings])


def make_report(results: Mapping[str, Result], config: TrainConfig, images: int, quick: bool) -> dict[str, Any]:
    """The figures of a run, and what each of its jobs took."""
    from talking_points.evaluation.learning import adaptation_figures

    report = results["figures"]["found"]
    before, *after = (results[scores_of(name)]["found"] for name in ("descriptor", *name_adapted(quick)))
    report["grpo"] = adaptation_figures(before, after)
    report["zero_shot"] = before["judge_a"]
    if not quick:
        report["hard"] = results["hard-figures"]["found"]
    report |= {
        "quick": quick,
        "bf16": config.localizer.bf16,
        "images": images * len(SOURCES),
        "stages": {
            name: {key: result[key] for key in ("seconds", "cpu_seconds", "metrics")}
            for name, result in results.items()
        },
        "samples": samples(config),
    }
    return report


def learn_config(output: Path, quick: bool, overrides: Iterable[str]) -> TrainConfig:
    """``configs/train/learn.yaml`` for this run; a quick run takes fewer steps."""
    given = [
        f"output={output / 'train'}",
        f"dataset={dataset_folder(output)}",
        f"features.folder={output / 'features'}",
    ]
    given += [f"vision.sources.{name}={drawn_roots(sample_folder(output, 'vision'))[name]}" for name in SOURCES]
    given.append(f"keypoints.root={drawn_roots(sample_folder(output))['ap10k']}")
    config = load_config(TrainConfig, "configs/train/learn.yaml", given)
    if not computes_bfloat16():
        given += [f"{name}=false" for name in BF16]
    if quick:
        steps = config.model_dump()
        for name, share in QUICK_SHARES.items():
            section, field = name.split(".")
            given.append(f"{name}={int(share * steps[section][field])}")
    return load_config(TrainConfig, "configs/train/learn.yaml", [*given, *overrides])


def samples(config: TrainConfig) -> dict[str, int]:
    """Points seen by each kind of training."""
    stages = {"localizer": config.localizer, "descriptor": config.descriptor, "adapt": config.adapt}
    return {name: (stage.max_steps or 0) * stage.batch_size * stage.accumulation for name, stage in stages.items()}


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table of its numbers, nested keys joined by dots."""
    rows = ["| figure | value |", "|---|---|"]

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{prefix}.{key}" if prefix else key, item)
        elif isinstance(value, int | float):
            rows.append(f"| {prefix} | {value:.2f} |" if isinstance(value, float) else f"| {prefix} | {value} |")

    add("", {key: value for key, value in report.items() if key not in ("details", "stages")})
    return "\n".join(rows) + "\n"
