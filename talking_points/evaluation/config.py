"""Evaluation configuration: which descriptions, found by which localizer, scored by which definition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from talking_points.build_config import StepConfig
from talking_points.config import Section
from talking_points.evaluation.pck import DEFINITIONS, PckDefinition
from talking_points.examples.config import FeatureConfig, KeypointsConfig, refuse_former_keys
from talking_points.output_names import DEVICES

_SET_NAME = re.compile(r"\w[\w .+-]{0,99}")
_LEVELS = (
    "where the object is in the image, which part of it the point is on and where that part is on the object, where "
    "the point is on the part, and what it looks like there. Left and right are the viewer's."
)
MARKED_POINT = (
    "A small red circle with a dot in its center marks one point of the image. Describe in one sentence where this "
    f"point is, so that somebody who sees the image without the mark can find it: {_LEVELS} Do not mention the mark."
)
PROMPTED_POINT = (
    "Describe in one sentence where one point of the image is, so that somebody who sees only the image can find it: "
    f"{_LEVELS}"
)
"""What a model is asked that takes the point as a prompt."""


class DescriptionSet(Section):
    """Where descriptions come from: exactly one of the fields, or none of them for the ground truth."""

    descriptor: str | None = Field(default=None, description="folder or Hub repository of a Point Descriptor")
    before_adaptation: bool = Field(
        default=False,
        description="the adapted descriptor without what its adaptation has trained: the very weights it started from, "
        "to which merging the adapters of earlier training has added its rounding",
    )
    file: Path | None = Field(default=None, description="JSONL or Parquet with the columns id and description")
    backend: StepConfig | None = Field(default=None, description="a vision model that is told or shown each point")
    question: str | None = Field(
        default=None,
        description="what the backend is asked; default: PROMPTED_POINT where it takes points, MARKED_POINT",
    )

    @model_validator(mode="after")
    def _one(self) -> DescriptionSet:
        if sum(source is not None for source in (self.descriptor, self.file, self.backend)) > 1:
            raise ValueError("give one of descriptor, file and backend, or none of them for the ground truth")
        if self.before_adaptation and self.descriptor is None:
            raise ValueError("before_adaptation is of a descriptor: give the folder of an adapted one")
        return self


class OtherModel(Section):
    """A further model that finds the descriptions of the dataset."""

    model: str = Field(description="folder or repository of a Point Localizer or a Point Answerer")
    text_only: str | None = Field(default=None, description="its twin that never saw an image, the control")


class EvaluateConfig(Section):
    """Everything that ``evaluate`` needs."""

    output: Path
    dataset: str | None = Field(default=None, description="folder or Hub repository of the triplets")
    keypoints: KeypointsConfig | None = Field(
        default=None, description="keypoints without descriptions instead of a dataset (paper, section 4.2)"
    )
    revision: str | None = None
    split: str = "test"
    limit: int | None = Field(default=None, ge=1, description="at most so many points, drawn by seed")
    seed: int = 0
    localizer: str = Field(description="folder or Hub repository of the Point Localizer that finds the descriptions")
    text_only: str | None = Field(
        default=None, description="a localizer trained with localizer.blind, the control; null leaves it out"
    )
    others: dict[str, OtherModel] = Field(
        default_factory=dict,
        description="further models by name, which find the dataset's own descriptions beside the localizer: a report "
        "and a paired comparison each",
    )
    definition: Literal["talking_points", "mp100"] = "talking_points"
    sets: dict[str, DescriptionSet] = Field(default_factory=lambda: {"ground_truth": DescriptionSet()})
    features: FeatureConfig = FeatureConfig()

    @field_validator("sets", "others")
    @classmethod
    def _names_of_files(cls, value: dict[str, Any]) -> dict[str, Any]:
        wrong = [name for name in value if not _SET_NAME.fullmatch(name) or DEVICES.fullmatch(name)]
        if wrong:
            raise ValueError(f"its report is named after each: expected a name that a file can have, found {wrong}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _refuse_former_keys(cls, values: Any) -> Any:
        return refuse_former_keys(values)

    @model_validator(mode="after")
    def _points(self) -> EvaluateConfig:
        if (self.dataset is None) == (self.keypoints is None):
            raise ValueError("give either dataset or keypoints")
        if self.others and self.keypoints is not None:
            raise ValueError("others find the dataset's own descriptions: give a dataset instead of keypoints")
        if twice := sorted(set(self.others) & set(self.sets)):
            raise ValueError(f"others and sets each make a report of their name: found {twice} in both")
        if self.keypoints is not None:
            empty = [name for name, source in self.sets.items() if source == DescriptionSet()]
            if empty:
                raise ValueError(
                    f"keypoints have no descriptions of their own: give {', '.join(empty)} a descriptor or a file"
                )
        return self

    @property
    def pck(self) -> PckDefinition:
        """The definition by its name."""
        return DEFINITIONS[self.definition]
