"""What ``make poses`` does, as jobs: scenes, the vision model, the answerer and its blind twin, figures.

With all ways also an answerer with a head for coordinates and a Point Localizer that learns the same keypoints.

Prefect is not imported here: every job runs in a process of its own, which need not pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.examples.config import KeypointFiles
from talking_points.examples.pose_rows import PoseRowsConfig, write_pose_rows
from talking_points.sources.drawn import drawn_roots
from talking_points.training.answerer_config import AnswererConfig
from tasks.learn_jobs import Job, Result, draw_once, time_work
from tasks.model_cards import train_with_card

TEST_OBJECTS = 160
"""Objects that each figure is taken on: a difference between two models is then known to about 3 points."""

MODES: tuple[Any, ...] = ("greedy", "beam", "mean")


TOKEN, LOCALIZER = "token head", "localizer trained on poses"
"""The further ways of pointing, as tables name them."""


def pose_jobs(
    config: AnswererConfig,
    output: Path,
    images: int,
    objects: int = TEST_OBJECTS,
    all_ways: bool = False,
    others: Mapping[str, str] | None = None,
) -> list[Job]:
    """All jobs of a run, what others wait for longest first; ``others`` are further models of the tables by name.

    Scenes of the trained categories are drawn a second time with another seed: objects of known species in images
    that nothing has seen.
    """
    twin = config.blind_twin()
    jobs = [
        _other(config, "scenes", partial(draw_once, scenes(output), images, "standard", config.seed, ["mp100"])),
        _other(config, "fresh-scenes", partial(_draw_fresh, config, output, objects)),
        Job("pose-vision", partial(train_with_card, "pose_vision", config), ("scenes",)),
        Job("answerer-blind", partial(train_with_card, "answerer", twin), ("scenes",)),
        Job("answerer", partial(train_with_card, "answerer", config), ("pose-vision",)),
    ]
    models = ["answerer", "answerer-blind", "fresh-scenes"]
    further = dict(others or {})
    if all_ways:
        jobs += _other_ways(config, output, images)
        models += ["answerer-token", "localizer"]
        further |= {
            TOKEN: str(config.output / "answerer-token"),
            LOCALIZER: str(config.output / "localizer"),
        }
    for name, seen in (("new", False), ("seen", True)):
        judged = judge(config, output, objects, seen, further)
        jobs.append(_other(config, f"figures-{name}", partial(_figures, judged), *models))
    return jobs


def _other_ways(config: AnswererConfig, output: Path, images: int) -> list[Job]:
    """The answerer with a head for coordinates, at equal steps; the localizer, its vision on parts of other scenes."""
    stage = config.answerer
    token = config.model_copy(update={"answerer": stage.model_copy(update={"model": stage.model | {"head": "token"}})})
    rows = PoseRowsConfig(
        output=output / "rows",
        keypoints=config.poses,
        splits=["train"],
        texts=stage.texts,
        image_size=config.image_size,
        copies=2,
        seed=config.seed,
    )
    sample, sources = output / "part-scenes", tuple(config.vision.sources)
    drawn = partial(draw_once, sample, max(24, images // 3), "plain", config.seed + 2, sources)
    roots = {name: root for name, root in drawn_roots(sample).items() if name in sources}
    vision = config.vision.model_copy(update={"sources": roots})
    localizer = config.model_copy(update={"vision": vision, "dataset": str(rows.output)})
    return [
        _other(config, "part-scenes", drawn),
        Job("vision", partial(train_with_card, "vision", localizer), ("part-scenes",)),
        _other(config, "rows", partial(write_pose_rows, rows), "scenes"),
        Job("answerer-token", partial(train_with_card, "answerer", token, "answerer-token"), ("pose-vision",)),
        Job("localizer", partial(train_with_card, "localizer", localizer), ("vision", "rows")),
    ]


def scenes(output: Path, fresh: bool = False) -> Path:
    """Where the scenes of a run are drawn."""
    return output / ("fresh-scenes" if fresh else "scenes")


def judge(
    config: AnswererConfig, output: Path, objects: int, seen: bool, others: Mapping[str, str] | None = None
) -> EvaluatePosesConfig:
    """The evaluation on categories that were trained on, in fresh images, or on new ones."""
    root = drawn_roots(scenes(output, fresh=seen))["mp100"]
    return EvaluatePosesConfig(
        output=output / ("seen" if seen else "new"),
        model=str(config.output / "answerer"),
        blind=str(config.output / "answerer-blind"),
        others=dict(others or {}),
        keypoints=KeypointFiles(root=root, partition=config.poses.partition, limit=objects),
        split="train" if seen else "test",
        texts=config.answerer.texts,
        modes=list(MODES),
        allow_seen=seen,
        seed=config.seed,
    )


def _draw_fresh(config: AnswererConfig, output: Path, objects: int) -> None:
    draw_once(scenes(output, fresh=True), max(60, 2 * objects), "standard", config.seed + 1, ["mp100"])


def _figures(judged: EvaluatePosesConfig) -> dict[str, Any]:
    from talking_points.evaluation.poses import evaluate_partition

    return evaluate_partition(judged, judged.divisions[0])


def _other(config: AnswererConfig, name: str, work: Any, *after: str) -> Job:
    return Job(name, partial(time_work, work, config.threads), after)


def figures_of(results: dict[str, Result]) -> dict[str, Any]:
    """The report of a run: figures on seen and on new categories, and by how much the sighted model is ahead."""
    new, seen = results["figures-new"]["found"], results["figures-seen"]["found"]
    groups = {"seen": seen["groups"]["seen categories"], "new": new["groups"]}
    held_out = new["groups"].get("known sets")
    ahead = {"seen": groups["seen"]["differences"]["greedy - blind twin"]}
    if held_out is not None:
        ahead["held_out"] = held_out["differences"]["greedy - blind twin"]
    return {
        "sighted_minus_blind": ahead,
        "oracle": results["pose-vision"]["metrics"].get("near_percent"),
        "seen": seen,
        "new": new,
        "stages": {
            name: {key: result[key] for key in ("seconds", "cpu_seconds", "metrics")}
            for name, result in results.items()
        },
    }
