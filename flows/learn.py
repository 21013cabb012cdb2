"""``make learn``: does the whole system learn? From nothing to a table of figures on two CPU cores.

Draws scenes, builds a dataset from them, trains localizers and a descriptor of the tiny preset from random weights,
adapts the descriptor on animals that it never saw, and writes ``report.json``. Interrupted and run again, it goes on.

The scenes are plain ones, and their places are put into coarse words: with fine words the text alone tells where a
point is, and nobody could say whether a localizer looked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from flows.jobs import Result, run_jobs
from flows.learn_jobs import SOURCES, adapted_names, dataset_folder, learning_jobs, sample_folder, scores_of
from talking_points.config import load_config
from talking_points.evaluation.learning import adaptation_figures
from talking_points.sources.drawn import drawn_roots
from talking_points.training.config import TrainConfig
from talking_points.whole_files import write_json, write_text

QUICK_SHARES = {
    "vision.backbone_steps": 0.6,
    "vision.steps": 0.32,
    "localizer.max_steps": 0.55,
    "descriptor.max_steps": 0.82,
    "adapt.max_steps": 0.4,
}
"""What a quick run keeps of the steps."""

BF16 = ("vision.backbone_bf16", "localizer.bf16", "descriptor.bf16")
"""Settings of ``configs/train/learn.yaml`` that pay only on a CPU with instructions for bfloat16."""


def learn(output: Path, quick: bool = False, images: int = 1800, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Run everything into ``output`` and return the report."""
    start = time.monotonic()
    images = images // 2 if quick else images
    config = learn_config(output, quick, overrides)
    os.environ["TQDM_DISABLE"] = "1"
    # Two processes with one thread each, which two cores serve better than two threads.
    results = run_jobs(learning_jobs(config, output, images, quick), 2, _print_job)
    report = results["figures"]["found"]
    before, *after = (results[scores_of(name)]["found"] for name in ("descriptor", *adapted_names(quick)))
    report["grpo"] = adaptation_figures(before, after)
    report["zero_shot"] = before["judge_a"]
    if not quick:
        report["hard"] = results["hard-figures"]["found"]
    # The processes of the jobs are no children of this one.
    cpu_seconds = sum(os.times()[:4]) + sum(result["process_cpu_seconds"] for result in results.values())
    report |= {
        "quick": quick,
        "bf16": config.localizer.bf16,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "images": images * len(SOURCES),
        "stages": {
            name: {key: result[key] for key in ("seconds", "cpu_seconds", "metrics")}
            for name, result in results.items()
        },
        "samples": samples(config),
    }
    write_json(output / "report.json", report)
    write_text(output / "report.md", table(report))
    return report


def learn_config(output: Path, quick: bool, overrides: Iterable[str]) -> TrainConfig:
    """``configs/train/learn.yaml`` for this run; a quick run takes fewer steps."""
    given = [
        f"output={output / 'train'}",
        f"dataset={dataset_folder(output)}",
        f"features.folder={output / 'features'}",
    ]
    given += [f"vision.sources.{name}={drawn_roots(sample_folder(output, 'vision'))[name]}" for name in SOURCES]
    given.append(f"ap10k.root={drawn_roots(sample_folder(output))['ap10k']}")
    config = load_config(TrainConfig, "configs/train/learn.yaml", given)
    if not fast_bf16():
        given += [f"{name}=false" for name in BF16]
    if quick:
        steps = config.model_dump()
        for name, share in QUICK_SHARES.items():
            section, field = name.split(".")
            given.append(f"{name}={int(share * steps[section][field])}")
    return load_config(TrainConfig, "configs/train/learn.yaml", [*given, *overrides])


def fast_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16; one that has none is slower with it than with float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _print_job(name: str, result: Result) -> None:
    made = " (made before)" if result.get("reused") else ""
    print(f"{name:<22} {result['seconds']:.0f} s{made}", flush=True)


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
