"""Configuration of the evaluation of segmenters."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from talking_points.config import ConfigError, Section
from talking_points.models.model_folders import check_model


class EvaluateSegmentationConfig(Section):
    """Everything that ``evaluate-segmentation`` needs."""

    output: Path
    model: str = Field(description="folder or repository of a segmenter, ours or of AutoModelForImageTextToText")
    revision: str | None = None
    coordinates: Literal["unit", "thousand", "pixels"] = Field(
        default="unit", description="what a foreign model writes; never guessed"
    )
    trust_remote_code: bool = Field(default=False, description="run code of the model's repository; pin its revision")
    compare: dict[str, str] = Field(
        default_factory=dict, description="further models by name, asked the same: their difference is tested in pairs"
    )
    instructions: Path = Field(description="folder that build-instructions has left")
    splits: list[str] = Field(default=["test"], min_length=1, description="each has its own figures, never pooled")
    train_split: str = Field(default="train", description="what the blind answer, the mean shape, is taken from")
    kinds: list[str] = Field(default=["text_to_mask"], min_length=1, description="questions whose answers are outlines")
    phrasing: Literal["rows", "own"] = Field(default="rows", description="as the dataset asks, or as the model does")
    boxes: bool = Field(default=True, description="also ask for the box in words (REC from a box answer)")
    controls: bool = Field(default=True, description="also ask about exchanged images")
    limit: int | None = Field(default=None, ge=1, description="at most so many questions of each split, drawn by seed")
    max_new_tokens: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1, description="questions answered at a time")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: PyTorch's")
    seed: int = 0


def check_segmentation(config: EvaluateSegmentationConfig) -> None:
    """Raise ``ConfigError`` for models or instructions that are not there."""
    if not (config.instructions / "data").is_dir():
        raise ConfigError(
            f"instructions: expected a folder that 'talking-points build-instructions' has left, found none at "
            f"{config.instructions}"
        )
    for setting, name in {"model": config.model, **{f"compare.{k}": v for k, v in config.compare.items()}}.items():
        files = (Path(name) / file for file in ("config.json", "adapter_config.json"))
        if not any(file.is_file() for file in files):
            check_model(name, "segmenter", setting)
    if config.trust_remote_code and not config.revision:
        raise ConfigError("trust_remote_code runs code of others: expected a pinned revision beside it, found none")
