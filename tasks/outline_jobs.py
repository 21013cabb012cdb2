"""What ``make outlines`` does, as jobs: scenes and their instructions, trainings, figures.

Prefect is not imported here: every job runs in a process of its own, which need not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from talking_points.evaluation.segmentation import evaluate_segmentation
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.rows import InstructionRow, instruction_table, make_rows
from talking_points.instructions.schema import INSTRUCTION_SCHEMA, PARQUET_OPTIONS
from talking_points.records import ImageRecord
from talking_points.sources import open_source
from talking_points.sources.drawn import drawn_roots
from talking_points.training.made_once import FINISHED
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.stages import run_stage
from talking_points.whole_files import read_json
from tasks.learn_jobs import SOURCES, Job, Result, draw_once, time_work

SEEDS = 3
"""Reinforcements from the same supervised model."""

SETTINGS = InstructionSettings.model_validate(
    {
        "outlines": {"points": 14},
        "regions": "objects",
        "rows": 2,
        "kinds": {"text_to_mask": 4.0, "point_to_mask": 2.0, "box_to_mask": 1.0, "text_to_box": 2.0},
    }
)
"""Objects, outlines of at most 14 points, two questions for each expression."""


def scenes(output: Path, side: str) -> Path:
    """Where the scenes of a side are drawn."""
    return output / f"scenes-{side}"


def instructions(output: Path) -> Path:
    """Where the instruction dataset of a run is."""
    return output / "instructions"


def outline_jobs(config: SegmenterConfig, output: Path, images: int, test_images: int) -> list[Job]:
    """All jobs of a run, what others wait for longest first.

    The control of every reinforcement is more supervised training from the same model for the same CPU time.
    """
    judged = partial(_evaluate, config, output)
    names = refined_names()
    jobs = [
        _other(config, "scenes", partial(_draw, config, output, images, test_images)),
        Job("vision", partial(run_stage, "segmenter_vision", config), ("scenes",)),
        _other(config, "instructions", partial(build_instructions, output, config.seed), "scenes"),
        Job("segmenter", partial(run_stage, "segmenter", config), ("vision", "instructions")),
    ]
    for seed, name in enumerate(names):
        own = config.model_copy(update={"seed": config.seed + seed})
        jobs.append(Job(name, partial(run_stage, "refined", own, name), ("segmenter",)))
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
    return run_stage("segmenter", config.model_copy(update=further), name) | {"steps": steps}


def _steps_of_equal_time(config: SegmenterConfig, refined: str) -> int:
    again = "remove the folder and run again"
    spent, supervised = (
        read_json(config.output / name / FINISHED, again)["cpu_seconds"] for name in (refined, "segmenter")
    )
    assert config.segmenter.max_steps is not None
    return max(1, round(config.segmenter.max_steps * spent / max(supervised, 1e-6)))


def _draw(config: SegmenterConfig, output: Path, images: int, test_images: int) -> None:
    for side, count, seed in (("train", images, config.seed), ("test", test_images, config.seed + 1000)):
        draw_once(scenes(output, side), count, "plain", seed, SOURCES)


def build_instructions(output: Path, seed: int) -> dict[str, int]:
    """Write the instruction dataset of both sides; returns rows by side."""
    folder = instructions(output) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for side in ("train", "test"):
        roots = drawn_roots(scenes(output, side))
        records = (record for name in SOURCES for record in open_source(name, roots[name]))
        path = folder / f"{side}-00000-of-00001.parquet"
        counts[side] = write_rows(path, _rows(records, side, seed))
    return counts


def _rows(records: Iterable[ImageRecord], side: str, seed: int) -> Iterator[list[InstructionRow]]:
    for record in records:
        rows, _ = make_rows(record, SETTINGS, seed, side=side)
        if rows:
            content = record.image_path.read_bytes()
            yield [InstructionRow(**{**vars(row), "image": content}) for row in rows]


def write_rows(path: Path, groups: Iterable[list[InstructionRow]], size: int = 256) -> int:
    """Write rows into one file, ``size`` to a row group; returns how many. The file is there when it is whole."""
    count, waiting = 0, []
    temporary = path.with_suffix(".partial")
    with pq.ParquetWriter(temporary, INSTRUCTION_SCHEMA, **PARQUET_OPTIONS) as writer:
        for group in groups:
            waiting += group
            count += len(group)
            if len(waiting) >= size:
                writer.write_table(instruction_table(waiting, INSTRUCTION_SCHEMA))
                waiting = []
        if waiting:
            writer.write_table(instruction_table(waiting, INSTRUCTION_SCHEMA))
    temporary.replace(path)
    return count


def _evaluate(config: SegmenterConfig, output: Path) -> dict[str, Any]:
    folder = config.output
    compare = {name: str(folder / name) for name in (*refined_names(), *map(control_name, range(SEEDS)))}
    return evaluate_segmentation(
        EvaluateSegmentationConfig(
            output=output / "evaluation",
            model=str(folder / "segmenter"),
            compare=compare,
            instructions=instructions(output),
            phrasing=config.segmenter.phrasing,
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
