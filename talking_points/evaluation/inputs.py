"""What an evaluation needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from talking_points.config import ConfigError
from talking_points.evaluation.config import EvaluateConfig
from talking_points.examples.dataset_names import check_dataset
from talking_points.models.model_folders import check_model

_WITHOUT_CONTROL = (
    "train it with 'talking-points train-localizer --config configs/train/text_only.yaml' (localizer.blind=true on the "
    "localizer's own configuration), or leave the control out with --set text_only=null"
)


def check_evaluation(config: EvaluateConfig) -> None:
    """Raise ``ConfigError`` for the first model, dataset or file of descriptions that is not there."""
    check_model(config.localizer, "PointLocalizer", "localizer")
    if config.text_only:
        check_model(config.text_only, "PointLocalizer", "text_only", _WITHOUT_CONTROL)
    for name, descriptions in config.sets.items():
        if descriptions.descriptor:
            check_model(descriptions.descriptor, "PointDescriptor", f"sets.{name}.descriptor")
        if descriptions.file and not descriptions.file.is_file():
            raise ConfigError(
                f"sets.{name}.file: expected a JSONL or Parquet file with the columns id and description, found none "
                f"at {descriptions.file}"
            )
    if config.dataset:
        check_dataset(config.dataset)
    if config.ap10k and not config.ap10k.root.is_dir():
        raise ConfigError(f"ap10k.root: expected the folder of AP-10K, found none at {config.ap10k.root}")
