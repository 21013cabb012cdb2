"""``make learn``: does the whole system learn? From nothing to a table of figures on two CPU cores.

Draws scenes, builds a dataset from them, trains localizers and a descriptor of the tiny preset from random weights,
adapts the descriptor on animals that it never saw, and writes ``report.json``. Interrupted and run again, it goes on.

The scenes are plain ones, and their places are put into coarse words: with fine words the text alone tells where a
point is, and nobody could say whether a localizer looked.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from flows.local import local_orchestration
from flows.server import claim_port, orchestrator
from talking_points.config import load_config
from talking_points.evaluation.learning import (
    Judges,
    adaptation_figures,
    adaptation_scores,
    hard_figures,
    trained_figures,
)
from talking_points.sources.drawn import draw_sample
from talking_points.training.config import TrainConfig
from talking_points.training.stages import (
    adapted_descriptor,
    family_points,
    pretrained_vision,
    trained_descriptor,
    trained_localizer,
)

SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet")

QUICK_SHARES = {
    "vision.backbone_steps": 0.4,
    "vision.steps": 0.25,
    "localizer.max_steps": 0.55,
    "descriptor.max_steps": 0.45,
    "adapt.max_steps": 0.25,
}
"""What a quick run keeps of the steps. It has no second judge, so that the localizer has time to learn to look."""

TEST_POINTS = 1200
"""Held-out points that figures are taken on: an mPCK of 80 is then known to about 1."""

Job = tuple[Callable[..., dict[str, Any]], TrainConfig, str]


def learn(output: Path, quick: bool = False, images: int = 1000, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Run everything into ``output`` and return the report."""
    start = time.monotonic()
    images = images * 3 // 5 if quick else images
    dataset, roots = drawn_dataset(output, "plain", images)
    config = learn_config(output, dataset, roots, quick, overrides)

    # Two processes with one thread each, which two cores serve better than two threads. What never sees an image can
    # be trained, and further scenes drawn, beside the vision path that all others start from.
    first: list[Job] = [(pretrained_vision, config, "vision"), blind_job(config)]
    if not quick:
        first.append((partial(timed, partial(hard_scenes, output, max(4, images // 4))), config, "hard-scenes"))
    results = in_parallel(first)
    results += in_parallel(jobs(config, quick))
    seeds = (0,) if quick else (0, 1, 2)
    adapted = {f"adapted-{seed}": config.model_copy(update={"seed": seed}) for seed in seeds}
    figures = partial(trained_figures, count=TEST_POINTS, second_judge=not quick, ablations=not quick)
    last: list[Job] = [(adapted_descriptor, own, name) for name, own in adapted.items()]
    results += in_parallel([*last, (partial(timed, figures), config, "figures")], len(last) + 1)
    report = results[-1]["found"]
    judged = ["descriptor", *adapted]
    scoring: list[Job] = [
        (partial(timed, partial(family_scores, name, not quick)), config, f"scores of {name}") for name in judged
    ]
    if not quick:
        hard = partial(hard_figures, dataset=output / "dataset-hard", count=TEST_POINTS)
        scoring.append((partial(timed, hard), config, "hard-figures"))
    scored = in_parallel(scoring)
    results += scored
    before, *after = (result["found"] for result in scored[: len(judged)])
    report["grpo"] = adaptation_figures(before, after)
    report["zero_shot"] = before["judge_a"]
    if not quick:
        report["hard"] = scored[-1]["found"]
    # The processes of the stages are no children of this one.
    cpu_seconds = sum(os.times()[:4]) + sum(result["process_cpu_seconds"] for result in results)
    report |= {
        "quick": quick,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "images": images * len(SOURCES),
        "stages": {
            result["stage"]: {key: result[key] for key in ("seconds", "cpu_seconds", "metrics")} for result in results
        },
        "samples": samples(config),
    }
    (output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (output / "report.md").write_text(table(report), encoding="utf-8")
    return report


def drawn_dataset(output: Path, variant: str, images: int) -> tuple[Path, dict[str, Path]]:
    """A dataset with a point in every part of drawn scenes; returns it and the roots of the drawn sources."""
    # Imported late: the orchestrator reads its settings when it is imported.
    from flows.build_llamapointinpart import build_llamapointinpart

    sample, dataset = output / f"sample-{variant}", output / f"dataset-{variant}"
    marker = sample / f".drawn-{images}"
    if not marker.exists():
        draw_sample(sample, images, variant=variant, workers=2)
        marker.touch()
    folders = {"pascal_part116": "PascalPart116", "ade20k_part234": "ADE20KPart234", "partimagenet": "PartImageNet"}
    roots = {name: sample / folder for name, folder in folders.items()} | {"ap10k": sample / "ap-10k"}
    settings = [f"output={dataset}", "keypoints.per=part", "keypoints.places=coarse"]
    # Smaller parts are a pixel or two of what the tiny preset sees.
    settings += ["keypoints.min_part_area=150", "sampling.equal_shares=false"]
    settings += [f"sources.{name}.root={roots[name]}" for name in SOURCES]
    build_llamapointinpart("configs/build/rules.yaml", settings)
    return dataset, roots


def learn_config(
    output: Path, dataset: Path, roots: dict[str, Path], quick: bool, overrides: Iterable[str]
) -> TrainConfig:
    """``configs/train/learn.yaml`` for this run; a quick run takes fewer steps."""
    given = [f"output={output / 'train'}", f"dataset={dataset}", f"features.folder={output / 'features'}"]
    given += [f"vision.sources.{name}={roots[name]}" for name in SOURCES] + [f"ap10k.root={roots['ap10k']}"]
    config = load_config(TrainConfig, "configs/train/learn.yaml", given)
    if quick:
        steps = config.model_dump()
        for name, share in QUICK_SHARES.items():
            section, field = name.split(".")
            given.append(f"{name}={int(share * steps[section][field])}")
    return load_config(TrainConfig, "configs/train/learn.yaml", [*given, *overrides])


def blind_job(config: TrainConfig) -> Job:
    """The control that reads the text alone."""
    return trained_localizer, _with(config, "localizer", blind=True), "text-only"


def hard_scenes(output: Path, images: int, config: TrainConfig) -> dict[str, Any]:
    """Draw scenes where phrases say little, and build their dataset."""
    drawn_dataset(output, "hard", images)
    return {}


def family_scores(descriptor: str, second_judge: bool, config: TrainConfig) -> dict[str, float]:
    """What a descriptor of the run, adapted or not, reaches on the family of animals that adaptation never saw."""
    family = family_points(config, config.ap10k.test_family)
    return adaptation_scores(family, config.output / descriptor, Judges.of_run(config, second=second_judge))


def timed(work: Callable[[TrainConfig], dict[str, Any]], config: TrainConfig, name: str) -> dict[str, Any]:
    """A job that trains nothing, in the form of the stages that do; what it found is ``found``."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    start = os.times()
    found = work(config)
    end = os.times()
    seconds, cpu_seconds = end.elapsed - start.elapsed, sum(end[:4]) - sum(start[:4])
    return {"stage": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "metrics": {}, "found": found}


def jobs(config: TrainConfig, quick: bool) -> list[Job]:
    """The supervised trainings of what sees: the models, and in a full run a second judge and the ablations."""
    # The longest ones first, so that both cores are busy to the end; and a localizer, if it comes after descriptors,
    # finds the features of all images.
    found: list[Job] = [(trained_descriptor, config, "descriptor"), (trained_localizer, config, "localizer")]
    if quick:
        return found
    frozen = _with_model(config, "localizer", train_language_model=False, train_vocabulary=False)
    plain = _with_model(config, "descriptor", keypoint_mask="predicted")
    # Without a point there is little to learn: a third of the steps reach it.
    steps = config.descriptor.max_steps or 3
    nowhere = _with(plain, "descriptor", withhold_points=True, max_steps=steps // 3)
    return [
        (trained_descriptor, plain, "no-gaussian"),
        *found,
        (trained_localizer, config.model_copy(update={"seed": config.seed + 1}), "judge-b"),
        (trained_localizer, frozen, "frozen-lm"),
        (trained_descriptor, nowhere, "no-location"),
    ]


def in_parallel(work: list[Job], processes: int = 2) -> list[dict[str, Any]]:
    """Run stages side by side, each in a process of its own."""
    os.environ["TQDM_DISABLE"] = "1"
    # A server that has imported everything forks the processes: importing takes ten seconds, and a run has twenty.
    context = get_context("forkserver")
    context.set_forkserver_preload(["flows.learn"])
    with ProcessPoolExecutor(processes, context, initializer=_quiet, max_tasks_per_child=1) as pool:
        waiting = [pool.submit(_in_process, stage, config, name) for stage, config, name in work]
        for done in as_completed(waiting):
            result = done.result()
            made = " (made before)" if result.get("reused") else ""
            print(f"{result['stage']:<12} {result['seconds']:.0f} s{made}", flush=True)
        return [future.result() for future in waiting]


def _in_process(stage: Callable[..., dict[str, Any]], config: TrainConfig, name: str) -> dict[str, Any]:
    result = stage(config, name)
    return result | {"process_cpu_seconds": sum(os.times()[:4])}


def _quiet() -> None:
    # What several processes write would be mixed up; values and curves are in the stages' folders.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


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


def _with(config: TrainConfig, section: str, **fields: Any) -> TrainConfig:
    """The configuration with other fields in one section."""
    return config.model_copy(update={section: getattr(config, section).model_copy(update=fields)})


def _with_model(config: TrainConfig, section: str, **choices: Any) -> TrainConfig:
    """The configuration with other choices for the model of one section, beside those that it has."""
    return _with(config, section, model={**getattr(config, section).model, **choices})


def main(
    output: Annotated[Path, typer.Option(help="folder of the run")] = Path("build/learn"),
    quick: Annotated[
        bool, typer.Option("--quick", help="fewer steps and images, no second judge, no ablations")
    ] = False,
    images: Annotated[int, typer.Option(help="drawn images per source")] = 1000,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the training configuration")
    ] = None,
) -> None:
    """Learn from drawn scenes and print the table."""
    local_orchestration(verbose=False, records=(output / "records").resolve())
    with orchestrator(claim_port()):
        report = learn(output, quick, images, overrides or [])
    print(table(report))
    print(output / "report.json")


if __name__ == "__main__":
    typer.run(main)
