"""``refine-segmenter``: reinforcement of a segmenter by the overlap of what it draws (GSPO)."""

from __future__ import annotations

from typing import Any

from prefect import flow

from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.segmenter_inputs import check_refinement
from tasks import train
from tasks.running.run_form import SegmentPreset, load_run
from tasks.running.run_page import describe_output, end_training, name_run, tag_run


@flow(
    name="refine-segmenter",
    persist_result=False,
    flow_run_name=name_run(describe_output("refined segmenter", SegmenterConfig)),
    validate_parameters=False,
)
def refine_segmenter(
    config: str = "configs/train/segment_tiny.yaml",
    overrides: list[str] | None = None,
    preset: SegmentPreset = "none",
    output: str = "",
    instructions_root: str = "",
    seed: int | None = None,
    segmenter_path: str = "",
) -> dict[str, Any]:
    """Refine a trained segmenter into ``output/refined``.

    Args:
        config: path of a YAML file with a ``SegmenterConfig``.
        overrides: ``key=value`` settings applied on top, e.g. ``["refine.updates=2"]``.
        preset: a shipped configuration instead of the file in config.
        output: folder that receives models, checkpoints, logs and curves.
        instructions_root: folder that build-instructions has left.
        seed: of weights and batches.
        segmenter_path: the trained segmenter; empty: output/segmenter.

    Run again after an interruption it goes on from the last checkpoint, which stands between two rollouts.
    """
    fields = {"output": output, "instructions_root": instructions_root, "seed": seed, "segmenter_path": segmenter_path}
    settings = load_run(SegmenterConfig, config, overrides, preset, **fields)
    check_refinement(settings)
    tag_run("training", "refined", f"preset:{settings.preset}")
    return end_training("refined segmenter", train.refinement(settings))
