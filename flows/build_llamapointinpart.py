"""``build-llamapointinpart``: from part-annotated images to a dataset of points in words.

Read it top to bottom: that is the way the data goes. Every stage runs as Prefect tasks over shards whose results are
kept, so running the flow again, or retrying it, makes only what is missing.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.build_config import BuildConfig
from talking_points.redaction import redact_errors
from tasks.assemble import assemble
from tasks.candidates import candidates
from tasks.figures import show_figures
from tasks.generate import generate
from tasks.index import index
from tasks.judge import judge
from tasks.local_caption import local_caption
from tasks.object_caption import object_caption
from tasks.orders import Orders
from tasks.publish import publish_dataset
from tasks.refine import refine
from tasks.running.build_checks import check_build
from tasks.running.build_folder import build_folder, request_cache_folder
from tasks.running.run_form import AtLeastOne, BuildPreset, load_run
from tasks.running.run_page import describe_build, end_run, name_run, tag_build
from tasks.running.runner import StageRunner
from tasks.sample import sample
from tasks.verify import verify


@flow(
    name="build-llamapointinpart",
    persist_result=False,
    flow_run_name=name_run(describe_build),
    validate_parameters=False,
)
@redact_errors
def build_llamapointinpart(
    config: str = "configs/build/rules.yaml",
    overrides: list[str] | None = None,
    preset: BuildPreset = "none",
    output: str = "",
    limit: AtLeastOne | None = None,
    seed: int | None = None,
    pascal_part116: str = "",
    ade20k_part234: str = "",
    partimagenet: str = "",
) -> dict[str, Any]:
    """Build the dataset that a configuration describes.

    Args:
        config: path of a YAML file with a ``BuildConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["workers=4", "refine.backend=vllm"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder or URL that the dataset is written to.
        limit: at most so many points, for a preview.
        seed: draws points and splits.
        pascal_part116: folder of PascalPart116.
        ade20k_part234: folder of ADE20KPart234.
        partimagenet: folder of PartImageNet.

    Returns the numbers that ``talking-points build`` prints last. Raises ``ConfigError`` for a configuration, a
    source or an output that cannot be used, and ``BuildFailed`` when shards failed, so that the run can be retried.
    """
    sources = {"pascal_part116": pascal_part116, "ade20k_part234": ade20k_part234, "partimagenet": partimagenet}
    settings = load_run(BuildConfig, config, overrides, preset, output=output, limit=limit, seed=seed, **sources)
    roots = check_build(settings)
    tag_build(config if preset == "none" else preset, settings)
    with build_folder(settings) as storage, StageRunner.for_build(settings, storage, roots) as stages:
        orders = Orders(settings, roots, request_cache_folder(storage), storage.fence(), storage.expected)

        # List the sources; find one keypoint per image inside a part, with its place in words; choose the points.
        listed = stages.complete(index, orders.index())
        found = stages.complete(candidates, orders.candidates(listed))
        sampled = stages.complete(sample, orders.sample(found))

        # Words for the object in the whole image, then for the neighbourhood of the point.
        objects = stages.run(object_caption, orders.object_caption(sampled))
        surroundings = stages.run(local_caption, orders.local_caption(sampled))

        # Merge both into one description, refine it, verify it. A shard that failed above goes no further.
        drafts = stages.run(generate, orders.generate(sampled, objects, surroundings))
        refined = stages.run(refine, orders.refine(sampled, objects, surroundings, drafts))
        verified = stages.complete(verify, orders.verify(sampled, objects, surroundings, drafts, refined))

        # Where a judge is configured: does the text lead back to its point?
        judged = stages.complete(judge, orders.judge(sampled, verified)) if settings.judge else {}

        # Split, write Parquet, draw the figures, write the card.
        texts = (objects, surroundings, drafts, refined)
        dataset = stages.complete(assemble, orders.assemble(listed, found, sampled, texts, verified, judged))[0]
        show_figures(storage)
    if settings.publish.repo:
        publish_dataset(settings.output, settings.publish.model_dump(mode="json"))
    return end_run(stages.progress.describe(), stages.progress.outcome(dataset))
