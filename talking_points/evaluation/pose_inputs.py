"""What an evaluation of named keypoints needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from talking_points.config import ConfigError
from talking_points.evaluation.inputs import check_pointing
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.examples.pose_files import check_keypoints, check_texts_file
from talking_points.models.model_folders import check_model


def check_poses(config: EvaluatePosesConfig) -> None:
    """Raise ``ConfigError`` for models, keypoints or a file of descriptions that are not there."""
    if config.keypoints.rows is not None:
        raise ConfigError(
            "keypoints.rows: expected named keypoints (keypoints.root or keypoints.own), found described points: "
            "'talking-points evaluate --set others.answerer.model=DIR' judges an answerer on those"
        )
    for keypoints in config.divisions:
        check_keypoints(keypoints, split=config.split)
        for setting, name in (("model", config.model), ("blind", config.blind)):
            if name is not None:
                check_model(name.replace("{partition}", str(keypoints.partition)), "answerer", setting)
        for name, place in config.others.items():
            check_pointing(place.replace("{partition}", str(keypoints.partition)), f"others.{name}")
    check_texts_file(config.texts, "texts")
