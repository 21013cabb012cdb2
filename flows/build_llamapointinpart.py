"""``build-llamapointinpart``: from part-annotated images to a dataset of points in words.

``make_dataset`` in ``tasks/dataset.py`` is the way the data goes, stage by stage. Every stage runs as Prefect tasks
over shards whose results are kept, so running the flow again, or retrying it, makes only what is missing.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.build_config import BuildConfig
from talking_points.redaction import redact_errors
from tasks.dataset import make_dataset
from tasks.figures import show_figures
from tasks.orders import Orders
from tasks.publish import publish_dataset
from tasks.running.build_checks import check_build
from tasks.running.build_folder import build_folder, request_cache_folder
from tasks.running.run_form import BuildPreset, load_run
from tasks.running.run_page import describe_build, end_run, name_run, tag_build
from tasks.running.runner import StageRunner


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
    limit: int | None = None,
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
    with build_folder(settings) as storage, StageRunner.for_build(settings, storage) as stages:
        orders = Orders(settings, roots, request_cache_folder(storage))
        dataset = make_dataset(stages, orders)
        show_figures(storage)
    if settings.publish.repo:
        publish_dataset(settings.output, settings.publish.model_dump(mode="json"))
    return end_run(stages.progress.describe(), stages.progress.outcome(dataset))
