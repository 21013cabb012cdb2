"""What a training needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from talking_points.config import ConfigError
from talking_points.examples.dataset_names import check_dataset, refuse_dataset
from talking_points.models.model_folders import check_model
from talking_points.training.config import TrainConfig


def check_training(config: TrainConfig) -> None:
    """Raise ``ConfigError`` for a dataset, sources of the vision path or a start that is not there."""
    refuse_dataset(config.output)
    check_dataset(config.dataset, texts={config.localizer.text} & {config.descriptor.text})
    # A localizer that never sees an image needs no vision path.
    pretrained = (config.output / "vision" / "stage.json").exists()
    if config.vision.steps and not config.localizer.blind and not pretrained:
        for name, root in config.vision.sources.items():
            if not root.is_dir():
                raise ConfigError(
                    f"vision.sources.{name}: expected the folder of a part-annotated dataset, found none at {root}; "
                    "draw samples with 'talking-points draw-sample', or start from a trained model with vision.steps=0"
                )
    if config.preset == "paper" and not config.start:
        raise ConfigError("the paper preset starts from OMG-LLaVA: set start to a converted release")


def check_adaptation(config: TrainConfig) -> None:
    """Raise ``ConfigError`` for models or keypoints that are not there."""
    keypoints = config.keypoints
    if keypoints.root is None or not keypoints.root.is_dir():
        raise ConfigError(
            "keypoints.root: adaptation needs keypoints without descriptions, expected the folder of the source "
            f"{keypoints.source}, found {f'none at {keypoints.root}' if keypoints.root else 'none given'}"
        )
    check_model(config.descriptor_path or config.output / "descriptor", "descriptor", "descriptor_path")
    check_model(config.localizer_path or config.output / "localizer", "localizer", "localizer_path")
