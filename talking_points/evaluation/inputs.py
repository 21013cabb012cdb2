"""What an evaluation needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from pathlib import Path

from talking_points.config import ConfigError
from talking_points.evaluation.config import EvaluateConfig
from talking_points.examples.dataset_names import check_dataset, refuse_dataset
from talking_points.models.model_folders import check_model, tell_kind

_WITHOUT_CONTROL = (
    "train it with 'talking-points train-localizer --config configs/train/text_only.yaml' (localizer.blind=true on the "
    "localizer's own configuration), or leave the control out with --set text_only=null"
)


def check_evaluation(config: EvaluateConfig) -> None:
    """Raise ``ConfigError`` for the first model, dataset or file of descriptions that is not there."""
    check_model(config.localizer, "localizer", "localizer")
    if config.text_only:
        check_model(config.text_only, "localizer", "text_only", _WITHOUT_CONTROL)
    for name, other in config.others.items():
        for setting, place in (("model", other.model), ("text_only", other.text_only)):
            if place is not None:
                check_pointing(place, f"others.{name}.{setting}")
    for name, descriptions in config.sets.items():
        if descriptions.descriptor:
            check_model(descriptions.descriptor, "descriptor", f"sets.{name}.descriptor")
        if descriptions.file and not descriptions.file.is_file():
            raise ConfigError(
                f"sets.{name}.file: expected a JSONL or Parquet file with the columns id and description, found none "
                f"at {descriptions.file}"
            )
    if config.dataset:
        check_dataset(config.dataset)
    refuse_dataset(config.output)
    if config.keypoints and not (config.keypoints.root and config.keypoints.root.is_dir()):
        found = f"at {config.keypoints.root}" if config.keypoints.root else "given"
        raise ConfigError(f"keypoints.root: expected the folder of {config.keypoints.source}, found none {found}")


def check_pointing(place: str, setting: str) -> None:
    """Raise ``ConfigError`` unless a localizer or an answerer is at ``place``; of a repository its loading tells."""
    folder = Path(place)
    if not folder.is_dir():
        check_model(place, "localizer", setting)
        return
    kind = tell_kind(folder)
    if kind not in ("PointAnswerer", "PointLocalizer"):
        raise ConfigError(f"{setting}: expected an answerer or a localizer in {folder}, found a {kind}")
