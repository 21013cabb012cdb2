"""``talking-points build --dry-run``: everything a build checks before it starts, and what it would do."""

from __future__ import annotations

import itertools
import math

from rich.console import Console
from rich.table import Table

from flows.build_llamapointinpart import check_build
from talking_points.config import BuildConfig, dataset_settings, fingerprint
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.sources import open_source
from tasks.build_folder import check_folder
from tasks.storage import Storage


def print_plan(settings: BuildConfig) -> None:
    """Validate configuration, sources, prompts, backends and output, and print the plan with counts.

    Nothing is written, downloaded or loaded. Raises what the build would raise.
    """
    console = Console()
    roots = check_build(settings)
    check_folder(Storage(settings.output), settings)

    images = {}
    table = Table(title="Sources")
    for column in ("source", "root", "images", "by split", "points wanted"):
        table.add_column(column, justify="right" if column == "images" else "left")
    for name, source in settings.open_sources.items():
        entries = open_source(name, roots[name], split=source.split, **source.options).entries()
        splits = {split: sum(1 for _ in group) for split, group in itertools.groupby(entries, key=lambda e: e.split)}
        images[name] = sum(splits.values())
        wanted = str(source.points) if source.points else "as many as the smallest source gives"
        table.add_row(name, roots[name], str(images[name]), ", ".join(f"{k} {v}" for k, v in splits.items()), wanted)
    console.print(table)

    points = expected_points(settings, images)
    shards = sum(math.ceil(count / settings.shard_size) for count in images.values())
    rows = math.ceil(points / settings.shard_size)
    plan = Table(title=f"Plan: at most {points} points, {shards + 5 * rows + len(images) + 2} task runs")
    for column in ("stage", "shards", "rows", "backend", "model"):
        plan.add_column(column, justify="right" if column in {"shards", "rows"} else "left")
    plan.add_row("index", str(len(images)), str(sum(images.values())), "", "")
    plan.add_row("candidates", str(shards), str(sum(images.values())), "SIFT", "")
    plan.add_row("sample", "1", str(points), "", "")
    for step in STEPS:
        section = settings.step(step)
        model = f"{section.model}@{section.revision or 'main'}" if section.model else ""
        plan.add_row(step, str(rows), str(points), section.backend, model)
    plan.add_row("verify", str(rows), str(points), "", "")
    plan.add_row("assemble", "1", str(points), "", "")
    console.print(plan)
    console.print(
        f"output {settings.output}, fingerprint {fingerprint(dataset_settings(settings))}, images: {settings.images}"
    )


def expected_points(settings: BuildConfig, images: dict[str, int]) -> int:
    """The most points that the listed images can give: one per image, shares equal, ``limit`` kept."""
    wanted = {name: min(images[name], source.points or images[name]) for name, source in settings.open_sources.items()}
    if settings.sampling.equal_shares and not any(source.points for source in settings.open_sources.values()):
        wanted = dict.fromkeys(wanted, min(wanted.values()))
    total = sum(wanted.values())
    return min(total, settings.limit) if settings.limit else total
