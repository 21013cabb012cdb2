"""``train-segmenter``: the small segmenter, from questions about regions and their answers."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.segmenter_inputs import check_segmenter
from tasks import train
from tasks.running.run_form import SegmentPreset, load_run
from tasks.running.run_page import describe_output, end_training, name_run, tag_run


@flow(
    name="train-segmenter",
    persist_result=False,
    flow_run_name=name_run(describe_output("segmenter", SegmenterConfig)),
    validate_parameters=False,
)
def train_segmenter(
    config: str = "configs/train/segment_tiny.yaml",
    overrides: list[str] | None = None,
    preset: SegmentPreset = "none",
    output: str = "",
    instructions_root: str = "",
    seed: int | None = None,
    start: str = "",
) -> dict[str, Any]:
    """Fine-tune the segmenter that a configuration describes into ``output/segmenter``.

    Args:
        config: path of a YAML file with a ``SegmenterConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["instructions.root=build/instructions"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder that receives models, checkpoints, logs and curves.
        instructions_root: folder that build-instructions has left.
        seed: of weights and batches.
        start: checkpoint to start from.

    Run again after an interruption it goes on from the last checkpoint; finished it is taken as it is.
    """
    fields = {"output": output, "instructions_root": instructions_root, "seed": seed, "start": start}
    settings = load_run(SegmenterConfig, config, overrides, preset, **fields)
    check_segmenter(settings)
    tag_run("training", "segmenter", f"preset:{settings.preset}")
    train.segmenter_vision(settings)
    return end_training("segmenter", train.segmenter(settings))
