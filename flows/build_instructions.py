"""``build-instructions``: from annotated regions of images to questions and answers about them.

Every stage runs as Prefect tasks over shards whose results are kept, so running the flow again, or retrying it, makes
only what is missing.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.instructions.config import InstructionBuildConfig
from talking_points.redaction import redact_errors
from talking_points.stage_names import INSTRUCTION_STAGES
from tasks.instruction_orders import InstructionOrders
from tasks.instructions import make_instructions
from tasks.publish import publish_dataset
from tasks.running.build_checks import check_instructions
from tasks.running.build_folder import build_folder
from tasks.running.run_form import AtLeastOne, InstructionPreset, load_run
from tasks.running.run_page import describe_output, end_run, name_run, tag_run
from tasks.running.runner import StageRunner


@flow(
    name="build-instructions",
    persist_result=False,
    flow_run_name=name_run(describe_output("instructions", InstructionBuildConfig)),
    validate_parameters=False,
)
@redact_errors
def build_instructions(
    config: str = "configs/build/instructions.yaml",
    overrides: list[str] | None = None,
    preset: InstructionPreset = "none",
    output: str = "",
    limit: AtLeastOne | None = None,
    seed: int | None = None,
    pascal_part116: str = "",
    ade20k_part234: str = "",
    partimagenet: str = "",
    refcoco: str = "",
    refcoco_plus: str = "",
    refcocog: str = "",
) -> dict[str, Any]:
    """Build the instruction dataset that a configuration describes.

    Args:
        config: path of a YAML file with an ``InstructionBuildConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["instructions.outlines.points=16"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder or URL that the dataset is written to.
        limit: at most so many images of each source, for a preview.
        seed: draws kinds, phrasings, points and splits.
        pascal_part116: folder of PascalPart116.
        ade20k_part234: folder of ADE20KPart234.
        partimagenet: folder of PartImageNet.
        refcoco: folder that holds refcoco and images.
        refcoco_plus: folder that holds refcoco+ and images.
        refcocog: folder that holds refcocog and images.

    Returns the numbers that ``talking-points build-instructions`` prints last. Raises ``ConfigError`` for a
    configuration, a source or an output that cannot be used, and ``BuildFailed`` when shards failed, so that the run
    can be retried.
    """
    roots = {"pascal_part116": pascal_part116, "ade20k_part234": ade20k_part234, "partimagenet": partimagenet}
    roots |= {"refcoco": refcoco, "refcoco_plus": refcoco_plus, "refcocog": refcocog}
    fields: dict[str, Any] = {"output": output, "limit": limit, "seed": seed, **roots}
    settings = load_run(InstructionBuildConfig, config, overrides, preset, **fields)
    found = check_instructions(settings)
    tag_run("build", "instructions", *(f"source:{name}" for name in settings.open_sources))
    with (
        build_folder(settings) as storage,
        StageRunner.for_build(settings, storage, found, INSTRUCTION_STAGES) as stages,
    ):
        orders = InstructionOrders(settings, found, storage.fence(), storage.expected)
        dataset = make_instructions(stages, orders)
    if settings.publish.repo:
        publish_dataset(settings.output, settings.publish.model_dump(mode="json"))
    return end_run(stages.progress.describe(), stages.progress.outcome(dataset))
