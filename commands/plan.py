"""``talking-points build --dry-run``: everything a build checks before it starts, and what it would take."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.table import Table

from commands.outputs import open_output
from talking_points.build_config import BatchConfig, BuildConfig, StepConfig, dataset_settings
from talking_points.config import fingerprint
from talking_points.descriptions.backends import what_is_missing
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.descriptions.budget import ASSUMPTIONS, StepBudget, plan_budget
from talking_points.descriptions.memory_plan import ENGINE_SHARE, GIB, GPUS, WORKSPACE, MemoryPlan
from talking_points.descriptions.spending import step_cost, step_prices
from talking_points.hub_sizes import WEIGHTS, to_download
from talking_points.redacted_console import RedactedConsole
from talking_points.sources import open_source
from talking_points.sources.protocol import NothingListedError, Source, SourceError, reasons_in_words
from talking_points.units import counted, format_duration, format_size
from tasks.assemble import count_tasks as count_assemble_tasks
from tasks.running.build_checks import check_build
from tasks.running.build_folder import check_folder
from tasks.sample import count_tasks as count_sample_tasks

POINT_SECONDS = 0.09
"""Seconds of one core for a point with the backend ``rules``, all stages together, as measured on 21,000."""
WORKER_BYTES, ROW_BYTES, IMAGE_BYTES = 1e9, 8e3, 160e3
"""Memory of a worker; bytes of a row in the output and in ``.work``, and of a photograph of the sources."""


def print_plan(settings: BuildConfig) -> None:
    """Validate configuration, sources, prompts, backends and output, and print the plan with counts.

    Nothing is written, downloaded or loaded. Raises what the build would raise, but for packages that are not
    installed: a plan may be made on another machine than the build, so it lists what to install. Of sources that are
    not here yet, what is planned are the points that the configuration wants of them, before this is raised.
    """
    console = RedactedConsole()
    storage = open_output(settings.output)
    absent, refused = _absent(settings), None
    roots = {name: str(source.root) for name, source in settings.open_sources.items()}
    try:
        roots = check_build(settings, installed=False)
    except SourceError as error:
        if not absent:
            raise
        refused = error
    check_folder(storage, settings)

    images, skipped, notes = {}, {}, []
    table = _table("Sources", "source", "images>", "by split", "points wanted")
    for name, source in settings.open_sources.items():
        wanted = f"{source.points:,}" if source.points else "as many as the smallest source gives"
        if name in absent:
            images[name] = absent[name]
            table.add_row(name, "not here", "", wanted)
            continue
        opened = open_source(name, roots[name], split=source.split, **source.options)
        groups = itertools.groupby(opened.entries(), key=lambda e: e.split)
        splits = {split: sum(1 for _ in group) for split, group in groups}
        images[name], skipped[name] = sum(splits.values()), (roots[name], opened.skipped)
        notes += _left_out(name, opened)
        table.add_row(name, f"{images[name]:,}", ", ".join(f"{k} {v}" for k, v in splits.items()), wanted)
    console.print(table)
    for name, root in roots.items():
        console.print(f"{name}: {root}", highlight=False, soft_wrap=True)
    if not any(images.values()):
        raise NothingListedError(skipped)
    for line in notes:
        console.print(line, highlight=False, soft_wrap=True)

    points = estimate_points(settings, images)
    shards = sum(math.ceil(count / settings.shard_size) for count in images.values())
    rows = math.ceil(points / settings.shard_size)
    pieces = {"sample": count_sample_tasks(sum(images.values())), "assemble": count_assemble_tasks(settings, points)}
    runs = shards + (5 + bool(settings.judge)) * rows + len(images) + sum(pieces.values())
    title = f"Plan: at most {counted(points, 'point')}, {counted(runs, 'task run')}"
    plan = _table(title, "stage", "shards>", "rows>", "backend", "model")
    plan.add_row("index", str(len(images)), str(sum(images.values())), "", "")
    plan.add_row("candidates", str(shards), str(sum(images.values())), "SIFT", "")
    plan.add_row("sample", str(pieces["sample"]), str(points), "", "")
    for step in STEPS:
        section = settings.step(step)
        plan.add_row(step, str(rows), str(points), section.backend, _model(section))
    plan.add_row("verify", str(rows), str(points), "", "")
    if settings.judge is not None:
        by = "localizer" if settings.judge.by == "localizer" else settings.judge.backend
        plan.add_row("judge", str(rows), str(points), by, _model(settings.judge))
    plan.add_row("assemble", str(pieces["assemble"]), str(points), "", "")
    console.print(plan)

    if any(step.model for step in settings.asking.values()):
        budget = plan_budget(settings, points)
        console.print(_memory_table(budget))
        console.print(_budget_table(budget))
        if settings.prices:
            console.print(_cost_table(settings, budget))
        for line in _notes(settings, budget):
            console.print(line, highlight=False, soft_wrap=True)
    for line in _own_work(settings, points):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"output {settings.output}, fingerprint {fingerprint(dataset_settings(settings))}, "
        f"images: {settings.images or 'embed'}"
    )
    if refused is not None:
        raise refused


def _left_out(name: str, source: Source) -> list[str]:
    """What listing a source has left out, by reason, with the first one of each."""
    examples = [f"  {reason}: such as {details[0]}" for reason, details in source.skipped_details.items() if details]
    return [f"left out of {name}: {reasons_in_words(source.skipped)}", *examples] if source.skipped else []


def _absent(settings: BuildConfig) -> dict[str, int]:
    """The points wanted of sources of which nothing is here; none of them where one of these does not say."""
    gone = {name: source for name, source in settings.open_sources.items() if not _here(source.root)}
    if any(source.points is None for source in gone.values()):
        return {}
    return {name: source.points or 0 for name, source in gone.items()}


def _here(root: Path | None) -> bool:
    return root is not None and root.expanduser().exists()


def _own_work(settings: BuildConfig, points: int) -> list[str]:
    """Time and memory of what needs no model, and the room that the output takes."""
    seconds = points * POINT_SECONDS / settings.workers
    room = "" if "://" in settings.output else f", {format_size(_room(settings.output))} free there"
    images = points * IMAGE_BYTES if settings.images in (None, "embed") else 0
    return [
        f"without models: about {format_duration(seconds)} with {settings.workers} workers on as many cores, "
        f"{format_size(settings.workers * WORKER_BYTES)} of memory",
        f"disk: about {format_size(points * ROW_BYTES + images)}{room}",
    ]


def _room(output: str) -> int:
    """Free bytes where a local output goes."""
    folder = Path(output).absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def estimate_points(settings: BuildConfig, images: dict[str, int]) -> int:
    """The most points that the listed images can give: one per image, shares equal, ``limit`` kept."""
    wanted = {name: min(images[name], source.points or images[name]) for name, source in settings.open_sources.items()}
    if settings.sampling.equal_shares and not any(source.points for source in settings.open_sources.values()):
        wanted = dict.fromkeys(wanted, min(wanted.values()))
    total = sum(wanted.values())
    return min(total, settings.limit) if settings.limit else total


def _table(title: str, *columns: str, boxed: bool = True) -> Table:
    """A table; columns whose name ends in ``>`` are numbers. The first column stays whole, the others are folded."""
    table = Table(title=title) if boxed else Table(title=title, box=None, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column.endswith(">") else "left"
        table.add_column(column.rstrip(">"), justify=justify, overflow="fold", no_wrap=number == 0)
    return table


def _model(section: StepConfig) -> str:
    return f"{section.model}@{section.revision}" if section.revision else section.model or ""


def _memory_table(budget: Sequence[StepBudget]) -> Table:
    table = _table(
        "Memory, GiB", "step", "weights>", "images>", "cache>", "in flight>", "shared>", "total>", *GPUS, boxed=False
    )
    for step in budget:
        memory = step.memory
        if memory is None:
            table.add_row(step.step, *["-"] * (6 + len(GPUS)))
            continue
        sizes = (memory.size.weights, memory.size.activations, memory.cache)
        table.add_row(
            step.step,
            *(f"{size / GIB:.1f}" for size in sizes),
            f"{memory.in_flight} x {memory.length}",
            str(memory.shared) if memory.shared else "",
            f"{memory.total / GIB:.1f}",
            *(_fits(memory, size) for size in GPUS.values()),
        )
    return table


def _fits(memory: MemoryPlan, gpu_bytes: float) -> str:
    at_once = memory.at_once(gpu_bytes)
    if at_once == 0:
        return "no"
    return "yes" if at_once == memory.in_flight else f"yes, {at_once} at a time"


def _budget_table(budget: Sequence[StepBudget]) -> Table:
    table = _table("Budget", "step", "requests>", "tokens in>", "tokens out>", "hours on one H100>")
    for step in budget:
        most = f" to {step.most_requests:,}" if step.most_requests > step.requests else ""
        hours = "-" if step.seconds is None else f"{step.seconds / 3600:.2f}"
        table.add_row(step.step, f"{step.requests:,}{most}", f"{step.tokens_in:,}", f"{step.tokens_out:,}", hours)
    table.add_section()
    known = [step.seconds for step in budget if step.seconds is not None]
    table.add_row(
        "all",
        f"{sum(step.requests for step in budget):,}",
        f"{sum(step.tokens_in for step in budget):,}",
        f"{sum(step.tokens_out for step in budget):,}",
        f"{sum(known) / 3600:.2f}",
    )
    return table


def _cost_table(settings: BuildConfig, budget: Sequence[StepBudget]) -> Table:
    cap = f", of a budget of {settings.budget}" if settings.budget else ""
    table = _table(f"Cost{cap}", "step", "model", f"{settings.currency}>")
    total, priced = 0.0, step_prices(settings)
    for step in budget:
        section = settings.step(step.step)
        model, price = section.model or "", priced.steps.get(step.step) if priced else None
        if price is not None:
            money = step_cost(price, step.step, step.requests, step.tokens_in, step.tokens_out)
            total += money
            off = f" as batches, {section.batch.discount:.0%} off" if section.batch else ""
            table.add_row(step.step, model + off, f"{money:,.2f}")
    table.add_section()
    table.add_row("all", "", f"{total:,.2f}")
    return table


def _download(section: StepConfig, step: StepBudget) -> str | None:
    """What a step's model would fetch from the Hub, and how much that is; None for nothing."""
    if section.model is None or section.backend in ("rules", "openai", "omg_llava", "llama_cpp"):
        return None
    size = to_download(section.model, "model", WEIGHTS, section.revision)
    if size == 0:
        return None
    if size is None:
        about = f"about {format_size(step.memory.size.weights)} by its weights, " if step.memory else ""
        return f"{section.model}, {about}the Hub does not tell from here"
    return f"{section.model}, {format_size(size)}"


def _notes(settings: BuildConfig, budget: Sequence[StepBudget]) -> list[str]:
    """What the tables do not say: how they were made, what is still missing, what cannot work."""
    notes = [
        f"memory: totals hold {WORKSPACE / GIB:g} GiB of workspace; an engine may fill {ENGINE_SHARE:.0%} of a GPU "
        "unless gpu_memory_utilization says otherwise; one model is loaded at a time; in flight: requests x tokens, "
        "of which those that are shared are held once",
        f"budget: {ASSUMPTIONS}",
    ]
    for step in budget:
        section = settings.step(step.step)
        if section.batch is not None:
            notes.append(_batch_note(step, section.batch))
        missing = what_is_missing(section)
        if missing:
            notes.append(f"to install: {missing}")
        if section.backend == "omg_llava" and not Path(str(section.model)).exists():
            notes.append(f"to make for {step.step}: {section.model}, by 'talking-points convert-omg-llava'")
        if step.memory and step.memory.length > step.memory.size.context:
            notes.append(
                f"{step.step}: a prompt of {step.memory.length - section.max_tokens} tokens and an answer of "
                f"{section.max_tokens} exceed the model's context of {step.memory.size.context}: lower max_tokens"
            )
        download = _download(section, step)
        if download:
            notes.append(f"to download for {step.step}: {download}")
        if section.model and step.memory is None:
            where = "its server's" if section.backend == "openai" else "not known before it is here"
            notes.append(f"memory of {step.step} ({section.model}): {where}")
    judge = settings.judge
    if judge is not None and judge.by == "localizer" and not Path(str(judge.model)).exists():
        notes.append(f"to have for judge: the Point Localizer {judge.model}, here or on the Hub")
    return list(dict.fromkeys(notes))


def _batch_note(step: StepBudget, batch: BatchConfig) -> str:
    """How a step's requests go out as batches."""
    files = math.ceil(step.requests / batch.max_requests)
    how = (
        "written for you to have answered"
        if batch.offline
        else f"sent as batches, answered within {batch.completion_window}"
    )
    wait = "" if batch.wait or batch.offline else "; the build ends when they are submitted, and a later run collects"
    return (
        f"{step.step}: {step.requests:,} requests in at least {counted(files, 'file')} of at most "
        f"{batch.max_requests:,} requests and {batch.max_megabytes:g} MB, {how}{wait}"
    )
