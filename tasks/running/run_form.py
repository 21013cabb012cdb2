"""The typed fields of a flow's run form: the settings that people change, beside ``config`` and ``overrides``.

A field that is left empty says nothing, and so does the preset ``none``. Any other preset is a shipped configuration
and takes the place of ``config``, the other fields stand above the configuration, and ``overrides`` above all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from talking_points.config import Loaded, load_config

AtLeastOne = Annotated[int, Field(ge=1)]
"""A count; the form refuses others before a run begins."""

BuildPreset = Literal[
    "none",
    "sample",
    "rules",
    "laptop",
    "laptop_llama_cpp",
    "paper",
    "batches",
    "judged",
    "plain",
    "hard",
    "without_local_caption",
    "without_object_caption",
]
InstructionPreset = Literal[
    "none", "instructions", "instructions_sample", "instructions_refcoco", "instructions_plain", "instructions_coarse",
    "instructions_fine", "instructions_counterclockwise", "instructions_rows", "instructions_random",
]  # fmt: skip
TrainPreset = Literal[
    "none",
    "tiny",
    "text_only",
    "no_gaussian",
    "frozen_lm",
    "draft",
    "canidae",
    "learn",
    "localizer_poses",
    "paper",
    "paper_text_only",
    "paper_no_gaussian",
    "paper_frozen_lm",
    "paper_canidae",
]
EvaluatePreset = Literal[
    "none", "triplets", "ap10k", "ap10k_bovidae", "mp100", "no_gaussian", "frozen_lm", "models", "omg_llava",
    "paper", "paper_ap10k", "paper_ap10k_bovidae", "paper_figure_1", "paper_frozen_lm", "paper_no_gaussian",
    "paper_omg_llava",
]  # fmt: skip
SegmentPreset = Literal[
    "none",
    "segment_tiny",
    "outlines",
    "segment_iou_alone",
    "segment_iou_steps",
    "segment_grpo",
    "segment_mask_alone",
    "segment_iou_centroid",
    "segment_coarse",
    "segment_fine",
    "segment_counterclockwise",
    "segment_rows",
    "segment_random",
    "segment_without_sft",
    "segment_7b",
]
EvaluateSegmentationPreset = Literal["none", "segment_parts", "refcoco", "segment_ablations"]
"""Names of the shipped configurations in ``configs/build``, ``configs/train`` and ``configs/evaluate``."""

SETTINGS = {
    "pascal_part116": "sources.pascal_part116.root",
    "ade20k_part234": "sources.ade20k_part234.root",
    "partimagenet": "sources.partimagenet.root",
    "refcoco": "sources.refcoco.root",
    "refcoco_plus": "sources.refcoco_plus.root",
    "refcocog": "sources.refcocog.root",
    "keypoints": "keypoints.root",
    "instructions_root": "instructions.root",
}
"""The setting that a field stands for, where it has another name."""


def load_run(
    model: type[Loaded],
    /,
    config: str | Path,
    overrides: Iterable[str] | None = None,
    preset: str = "none",
    **fields: Any,
) -> Loaded:
    """The configuration of a run from what its form says.

    Raises ``ConfigError`` as ``load_config`` does.
    """
    file = Path(str(config)) if preset == "none" else Path("configs", _FOLDERS[model.__name__], f"{preset}.yaml")
    given = {SETTINGS.get(name, name): value for name, value in fields.items() if value not in (None, "")}
    return load_config(model, file, [*(f"{name}={value}" for name, value in given.items()), *(overrides or [])])


_FOLDERS = {
    "BuildConfig": "build",
    "InstructionBuildConfig": "build",
    "TrainConfig": "train",
    "EvaluateConfig": "evaluate",
    "RetrainConfig": "train",
    "SegmenterConfig": "train",
    "EvaluateSegmentationConfig": "evaluate",
}
