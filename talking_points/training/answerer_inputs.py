"""What an answerer's training needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from talking_points.config import ConfigError
from talking_points.examples.pose_files import check_keypoints
from talking_points.training.answerer_config import AnswererConfig, texts_file


def check_answerer(config: AnswererConfig) -> None:
    """Raise ``ConfigError`` for keypoints or a file of descriptions that are not there."""
    check_keypoints(config.poses, "poses", "train")
    texts = texts_file(config)
    if texts is not None and not texts.is_file():
        raise ConfigError(
            f"answerer.texts: expected the author rules, null for names alone, or a file of descriptions, found none "
            f"at {texts}"
        )
