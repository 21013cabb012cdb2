"""What an answerer's training needs to be there, looked at before anything is spent and without torch."""

from __future__ import annotations

from talking_points.config import ConfigError
from talking_points.examples.pose_files import check_keypoints, check_texts_file
from talking_points.training.answerer_config import AnswererConfig, AnswererStage


def check_answerer(config: AnswererConfig) -> None:
    """Raise ``ConfigError`` for keypoints or descriptions that are not there, and for choices that no model has."""
    check_choices(config.answerer)
    check_keypoints(config.poses, "poses", "train")
    check_texts_file(config.answerer.texts, "answerer.texts")


def check_choices(stage: AnswererStage) -> None:
    """Raise ``ConfigError`` for choices in ``stage.model`` that a Point Answerer does not have, by name."""
    if not stage.model:
        return
    # Only here: they take seconds to import.
    from huggingface_hub.errors import StrictDataclassError

    from talking_points.models.capellm.configuration import AnswererConfig as ModelConfig

    unknown = [name for name in stage.model if name not in ModelConfig.__dataclass_fields__]
    if unknown:
        raise ConfigError(
            "answerer.model: expected choices of talking_points/models/capellm/configuration.py, found "
            f"{', '.join(unknown)}; leave it out"
        )
    try:
        ModelConfig(**stage.model)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ConfigError(f"answerer.model: {error.__cause__ or error}; give another value") from error
