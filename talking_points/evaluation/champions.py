"""Which run is the champion, and what a challenger is trained by; without torch, so that mistakes are told at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from talking_points.config import ConfigError, Section
from talking_points.locks import only_writer
from talking_points.models.kinds import KINDS
from talking_points.training.config import TrainConfig
from talking_points.training.inputs import check_training
from talking_points.whole_files import read_json, write_json

_RESTORE = "write the entry of the run to go on with, from history.jsonl, or remove the file to begin anew"
_REPOSITORY = r"^[\w.-]+/[\w.-]+$"


class PublishModelsConfig(Section):
    """Where the champion's models go; nothing is uploaded without a repository."""

    descriptor: str | None = Field(default=None, pattern=_REPOSITORY, description="org/name on the Hugging Face Hub")
    localizer: str | None = Field(default=None, pattern=_REPOSITORY, description="another org/name")
    private: bool = True
    token_block: str | None = Field(default=None, description="name of a Prefect Secret block that holds the token")

    @model_validator(mode="after")
    def _apart(self) -> PublishModelsConfig:
        named = Counter(self.repositories.values())
        if named and max(named.values()) > 1:
            raise ValueError(f"expected one repository for each model, found {named.most_common(1)[0][0]} for both")
        return self

    @property
    def repositories(self) -> dict[str, str]:
        """The repository of every model that is to be published, by the model's folder in a run."""
        return {role: repository for role in KINDS if (repository := getattr(self, role, None)) is not None}


class RetrainConfig(Section):
    """Everything that ``retrain-and-evaluate`` needs. ``train.output`` is replaced by the run's own folder."""

    folder: Path = Field(description="holds the champion, the history and the runs")
    train: TrainConfig
    split: str = "test"
    limit: int | None = Field(default=None, ge=1, description="test points, drawn by seed")
    publish: PublishModelsConfig = PublishModelsConfig()

    @model_validator(mode="after")
    def _sees(self) -> RetrainConfig:
        if self.train.localizer.blind:
            raise ValueError("train.localizer.blind: expected a localizer that sees images; its control is trained too")
        return self


def champion_of(folder: Path) -> dict[str, Any] | None:
    """The entry of the champion in a folder of runs, or None before the first run."""
    path = folder / "champion.json"
    return read_json(path, _RESTORE) if path.exists() else None


def restore_previous(folder: Path) -> dict[str, Any]:
    """Make the champion before the current one the champion again; raises ``ConfigError`` when there is none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} has no earlier champion to go back to: expected the folder of the runs")
    with only_writer(folder, "a choice of the champion"):
        champion = champion_of(folder)
        if champion is None or champion["previous"] is None:
            raise ConfigError(f"{folder} has no earlier champion to go back to: expected the folder of the runs")
        write_json(folder / "champion.json", champion["previous"])
    return champion["previous"]


def check_retraining(config: RetrainConfig) -> None:
    """Raise ``ConfigError`` for what the trainings need and is not there."""
    check_training(config.train)
