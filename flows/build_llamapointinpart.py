"""``build-llamapointinpart``: from part-annotated photographs to a dataset of points in words.

Read it top to bottom: that is the way the data goes. Every step below runs as Prefect tasks over shards whose
results are kept, so running the flow again, or retrying it, makes only what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.descriptions.backends import BACKENDS, check_capabilities
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.descriptions.budget import planned_seconds
from talking_points.descriptions.prompts import prompt_digest
from talking_points.redaction import redact, redacted_errors
from talking_points.sources import open_source
from tasks.assemble import assemble, assembly_settings
from tasks.candidates import candidates
from tasks.caption import local_caption, object_caption
from tasks.figures import show_figures
from tasks.index import index
from tasks.merge import generate, refine_task, verify_task
from tasks.orders import Orders
from tasks.publish import publish_dataset
from tasks.running.build_folder import build_folder
from tasks.running.failures import BuildFailed
from tasks.running.progress import BuildProgress
from tasks.running.runner import StageRunner, task_runner
from tasks.running.shards import WORK, Manifest
from tasks.running.storage import Storage
from tasks.sample import sample


@flow(name="build-llamapointinpart", persist_result=False, flow_run_name="build-{config}", validate_parameters=False)
@redacted_errors
def build_llamapointinpart(
    config: str = "configs/build/rules.yaml", overrides: list[str] | None = None
) -> dict[str, Any]:
    """Build the dataset that a configuration describes.

    Args:
        config: path of a YAML file with a ``BuildConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["limit=100", "sources.partimagenet.root=/data/PIN"]``.

    Returns the numbers that ``talking-points build`` prints last. Raises ``ConfigError`` for a configuration, a
    source or an output that cannot be used, and ``BuildFailed`` when shards failed, so that the run can be retried.
    """
    settings = load_config(BuildConfig, config, overrides or [])
    roots = check_build(settings)
    with (
        build_folder(settings) as storage,
        BuildProgress(storage, planned=planned_seconds(settings), workers=settings.workers) as progress,
        task_runner(settings.runner, settings.workers) as runner,
    ):
        orders = Orders(settings, roots, request_cache_folder(storage))
        stages = StageRunner(runner, settings.workers, storage, progress)

        # List the sources; find one keypoint per image inside a part, with its place in words; choose the points.
        listings = _complete(stages.run(index, orders.index()), progress)
        found = _complete(stages.run(candidates, orders.candidates(listings)), progress)
        sampled = _complete(stages.run(sample, [orders.sample([*found.values()])]), progress)[0]
        shards: dict[int, Manifest] = {shard["shard"]: shard for shard in sampled["details"]["shards"]}

        # Words for the object in the whole image, then for the neighbourhood of the point.
        objects = stages.run(object_caption, [orders.object_caption(shard) for shard in shards.values()])
        locals_ = stages.run(local_caption, [orders.local_caption(shard) for shard in shards.values()])

        # Merge both into one description, refine it, verify it. A shard that failed above goes no further.
        drafts = stages.run(generate, [orders.generate(group) for group in _joined(shards, objects, locals_)])
        refined = stages.run(refine_task, [orders.refine(group) for group in _joined(shards, objects, locals_, drafts)])
        verified = stages.run(
            verify_task, [orders.verify(group) for group in _joined(shards, objects, locals_, drafts, refined)]
        )
        _complete(verified, progress)

        # Split, write Parquet, draw the figures, write the card.
        everything = [*verified.values(), *listings.values(), *found.values(), sampled]
        for stage in (objects, locals_, drafts, refined):
            everything += stage.values()
        dataset = _complete(
            stages.run(assemble, [orders.assemble(everything, assembly_settings(settings, roots))]), progress
        )[0]
        show_figures(storage)
    if settings.publish.repo:
        publish_dataset(settings.output, settings.publish.model_dump(mode="json"))
    return summary(settings, dataset, progress)


def check_build(settings: BuildConfig, *, installed: bool = True) -> dict[str, str]:
    """Check sources, prompts and backends before anything is spent; returns the resolved folder of every source.

    A plan for another machine is checked with ``installed=False``: it may name packages that are missing on this one.
    Raises ``ConfigError`` with all problems of the backends, or for the first source or prompt that cannot be read.
    """
    if not settings.open_sources:
        raise ConfigError(
            "no source has a root: set at least one of sources.{pascal_part116,ade20k_part234,partimagenet}.root, "
            "or draw sample sources with 'talking-points draw-sample DIR'"
        )
    problems = []
    for step in STEPS:
        missing = BACKENDS[settings.step(step).backend].missing()
        found = check_capabilities(step, settings.step(step))
        problems += [problem for problem in found if installed or not missing or missing not in problem]
    if problems:
        raise ConfigError("this build cannot start:\n  " + "\n  ".join(problems))
    for step in STEPS:
        prompt_digest(settings.step(step).prompt or step)
    return {
        name: str(open_source(name, source.root or "", split=source.split, **source.options).root)
        for name, source in settings.open_sources.items()
    }


def request_cache_folder(storage: Storage) -> Path:
    """Where finished model answers are kept: beside the shards, or in the user's cache for a remote output."""
    if storage.is_local:
        return Path(storage.path(WORK), "requests")
    return Path.home() / ".cache" / "talking-points" / "requests"


def summary(settings: BuildConfig, dataset: Manifest, progress: BuildProgress) -> dict[str, Any]:
    """What a build prints last. Listing a source is not counted as a shard."""
    shards = [status for name, status in progress.stages.items() if name != "index"]
    return {
        "dataset": redact(settings.output),
        "rows": dataset["rows"],
        "rejected": sum(dataset["details"]["rejected"].values()),
        "reused_shards": sum(status.reused for status in shards),
        "executed_shards": sum(status.executed for status in shards),
        "seconds": progress.summary()["seconds"],
    }


def _complete(results: dict[int, Manifest], progress: BuildProgress) -> dict[int, Manifest]:
    """The results, if no shard has failed so far; what follows needs all of them."""
    if progress.failures:
        raise BuildFailed(progress.failures)
    return results


def _joined(*stages: Mapping[int, Manifest]) -> list[list[Manifest]]:
    """For every shard that all the stages have, its manifests in the order of the stages."""
    return [[stage[number] for stage in stages] for number in stages[0] if all(number in stage for stage in stages)]
