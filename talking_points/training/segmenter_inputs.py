"""What a segmenter's training needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from pathlib import Path

from talking_points.config import ConfigError
from talking_points.models.model_folders import check_model
from talking_points.training.segmenter_config import SegmenterConfig


def check_segmenter(config: SegmenterConfig) -> None:
    """Raise ``ConfigError`` for instructions, sources of the vision path or a start that are not there."""
    _check_instructions(config)
    if config.preset == "image_text":
        return  # opening the model of others says what is wrong with it
    if config.start:
        check_model(config.start, "segmenter", "start")
    elif config.segmenter_vision.backbone_steps and not (config.output / "vision" / "stage.json").exists():
        if not config.segmenter_vision.sources:
            raise ConfigError(
                "segmenter_vision.sources: expected the roots of part-annotated sources by name, found none; leave the "
                "vision path as it starts with segmenter_vision.backbone_steps=0"
            )
        for name, root in config.segmenter_vision.sources.items():
            if not root.is_dir():
                raise ConfigError(
                    f"segmenter_vision.sources.{name}: expected the folder of a part-annotated dataset, found none at "
                    f"{root}; draw samples with 'talking-points draw-sample'"
                )


def check_refinement(config: SegmenterConfig) -> None:
    """Raise ``ConfigError`` for instructions or a segmenter that are not there."""
    _check_instructions(config)
    place = config.segmenter_path or config.output / "segmenter"
    if config.preset == "image_text" and (Path(place) / "adapter_config.json").is_file():
        return
    check_model(place, "segmenter", "segmenter_path")


def _check_instructions(config: SegmenterConfig) -> None:
    root = config.instructions.root
    if root is None or not (root / "data").is_dir():
        raise ConfigError(
            "instructions.root: expected a folder that 'talking-points build-instructions' has left, found "
            f"{'none given' if root is None else f'no data in {root}'}"
        )
