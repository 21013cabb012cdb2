"""How regions become instructions: every setting is documented where it is declared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from talking_points.config import Section
from talking_points.grounding.contours import FEWEST_POINTS, SMALL_MASK, Tracing
from talking_points.grounding.grammar import DECIMALS, MAX_POINTS
from talking_points.instructions.elements import KINDS, Kind

TRAINING_KINDS: dict[Kind, float] = {
    "text_to_mask": 4.0,
    "point_to_mask": 2.0,
    "box_to_mask": 1.0,
    "text_to_box": 1.0,
    "text_to_point": 1.0,
    "point_to_box": 1.0,
    "box_to_text": 1.0,
    "point_to_text": 1.0,
}
"""Relative weights; the kinds that show an outline in the question are optional, and not among them."""


class OutlineSettings(Section):
    """How a mask is written as outlines."""

    tolerance: float = Field(
        default=0.03, ge=0, lt=0.5, description="how far a simplified outline may stray; 0 keeps every corner"
    )
    tolerance_of: Literal["area", "length"] = Field(
        default="area", description="the tolerance is relative to the square root of the outline's area, or its length"
    )
    points: int | None = Field(
        default=None, ge=FEWEST_POINTS, description="a budget of points for all outlines instead of a tolerance"
    )
    balanced: bool = Field(default=True, description="move corners so that no edge gains or loses area")
    contour: Literal["mid_edge", "edge", "centres"] = Field(
        default="mid_edge", description="centres: through pixel centres, for comparisons with other data alone"
    )
    direction: Literal["clockwise", "counterclockwise"] = Field(
        default="clockwise", description="as seen on the screen"
    )
    components: int | None = Field(default=8, ge=1, description="outlines at most, the largest first; null: all")
    holes: bool = Field(default=False, description="write holes as well, one level of brackets more")
    decimals: int = Field(default=DECIMALS, ge=2, le=4, description="of every coordinate")

    @property
    def tracing(self) -> Tracing:
        """The same for ``grounding.contours.trace``."""
        return Tracing(**self.model_dump(exclude={"decimals"}))


class InstructionSettings(Section):
    """What is asked, about which regions, and which regions are left out."""

    outlines: OutlineSettings = OutlineSettings()
    regions: Literal["all", "objects", "parts"] = Field(default="all", description="whole objects, parts, or both")
    kinds: dict[Kind, float] = Field(
        default=TRAINING_KINDS, description="relative weights of the kinds of questions on the training side"
    )
    evaluation_kinds: dict[Kind, float] = Field(
        default={"text_to_mask": 1.0}, description="the same on the test side, where every expression gives a row"
    )
    rows: int = Field(default=1, ge=1, le=len(KINDS), description="rows of different kinds for every expression")
    min_area: int = Field(default=SMALL_MASK, ge=1, description="pixels; smaller regions are left out")
    max_points: int = Field(default=MAX_POINTS, ge=FEWEST_POINTS, description="points of a region's outlines")
    max_answer_tokens: int = Field(
        default=1024, ge=16, description="of a region's outlines, estimated for a tokenizer with single digits"
    )
    min_iou: float = Field(
        default=0.8, ge=0, le=1, description="overlap of a mask with its outlines, once written and read again"
    )
    warn_holes: float = Field(
        default=0.05, ge=0, le=1, description="flag holes_filled where filled holes cost more overlap than this"
    )
    phrasings: str = Field(
        default="instructions", description="questions and answers: a file of prompts/, or the path of a .yaml file"
    )
    variants: int | None = Field(
        default=None, ge=1, description="use so many of each kind's questions and answers, the first ones; null: all"
    )

    @field_validator("kinds", "evaluation_kinds")
    @classmethod
    def _has_weights(cls, value: dict[Kind, float]) -> dict[Kind, float]:
        if any(weight < 0 for weight in value.values()) or not any(value.values()):
            raise ValueError("expected weights of at least 0, one of them above it")
        return value

    def weights(self, side: str) -> dict[Kind, float]:
        """Of the kinds that can be drawn on a side ("train", or another for evaluation), in the order of ``KINDS``."""
        given = self.kinds if side == "train" else self.evaluation_kinds
        return {kind: given[kind] for kind in KINDS if given.get(kind)}
