"""Configuration of the evaluation of named keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from talking_points.config import Section
from talking_points.examples.config import KeypointFiles


class EvaluatePosesConfig(Section):
    """Everything that ``evaluate-poses`` needs. ``{partition}`` in a model's name stands for the partition's number."""

    output: Path
    model: str = Field(description="folder or repository of a Point Answerer")
    blind: str | None = Field(
        default=None, description="its twin that never saw an image, at equal steps; null leaves the control out"
    )
    others: dict[str, str] = Field(
        default_factory=dict,
        description="further ways of pointing by name, each a folder or repository of a Point Answerer or a Point "
        "Localizer, which is given the same crops and the descriptions as its texts",
    )
    keypoints: KeypointFiles = KeypointFiles()
    partitions: list[int] = Field(
        default_factory=list, description="of MP-100, one after the other, with their mean; none: keypoints.partition"
    )
    split: str = "test"
    texts: str | None = Field(default="rules", description="author or file of the descriptions; null: names alone")
    modes: list[Literal["greedy", "beam", "mean", "free"]] = Field(default=["greedy"], min_length=1)
    controls: bool = Field(default=True, description="also ask with exchanged descriptions and with names alone")
    protocol: Literal["queries", "pairs"] = Field(
        default="queries", description="pairs: also the 60,000 pairs of support-based methods, to compare with them"
    )
    allow_seen: bool = Field(default=False, description="the categories may be ones that the model was trained on")
    seed: int = 0
    batch_size: int = Field(default=8, ge=1, description="objects read at a time")

    @field_validator("partitions")
    @classmethod
    def _partitions(cls, value: list[int]) -> list[int]:
        if any(not 1 <= one <= 5 for one in value) or len(set(value)) < len(value):
            raise ValueError(f"expected different numbers from 1 to 5, found {value}")
        return value

    @property
    def divisions(self) -> list[KeypointFiles]:
        """The keypoints of every partition that is evaluated."""
        given = self.partitions or [self.keypoints.partition]
        return [self.keypoints.model_copy(update={"partition": one}) for one in given]
