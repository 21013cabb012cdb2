"""``evaluate-segmentation``: expressions through a segmenter, with controls, intervals and the published table."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig, check_segmentation
from tasks.evaluate import segmentation_evaluation
from tasks.running.run_form import AtLeastOne, EvaluateSegmentationPreset, load_run
from tasks.running.run_page import describe_output, name_run, tag_run


@flow(
    name="evaluate-segmentation",
    persist_result=False,
    flow_run_name=name_run(describe_output("segmentation", EvaluateSegmentationConfig)),
    validate_parameters=False,
)
def evaluate_segmentation(
    config: str = "configs/evaluate/segment_parts.yaml",
    overrides: list[str] | None = None,
    preset: EvaluateSegmentationPreset = "none",
    output: str = "",
    model: str = "",
    instructions: str = "",
    limit: AtLeastOne | None = None,
) -> dict[str, Any]:
    """Evaluate a segmenter on every split; reports and tables are written into ``output``.

    Args:
        config: path of a YAML file with an ``EvaluateSegmentationConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["model=build/train-segmenter/refined"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder that receives reports and tables.
        model: folder or repository of the segmenter.
        instructions: folder that build-instructions has left.
        limit: at most so many questions of each split.
    """
    fields = {"output": output, "model": model, "instructions": instructions, "limit": limit}
    settings = load_run(EvaluateSegmentationConfig, config, overrides, preset, **fields)
    check_segmentation(settings)
    tag_run("evaluation", "segmentation")
    return segmentation_evaluation(settings)
