"""How regions become instructions: every setting is documented where it is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from talking_points.build_config import PublishConfig, SourceConfig
from talking_points.cluster_settings import MOST_WORKERS
from talking_points.config import Section, suggest
from talking_points.grounding.contours import FEWEST_POINTS, SMALL_MASK, Tracing
from talking_points.grounding.grammar import DECIMALS, MAX_POINTS
from talking_points.instructions.described_points import identify_points
from talking_points.instructions.elements import KINDS, Kind
from talking_points.instructions.point_order import PointOrder
from talking_points.output_names import readable_output
from talking_points.redaction import hide_secrets
from talking_points.runner_config import RunnerConfig, runner_as_section
from talking_points.source_names import buildable_sources
from talking_points.sources.refcoco import SETS

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
    order: PointOrder = Field(
        default="outline",
        description="of the points in answers that are trained on: along the outline, or in rows or at random, which "
        "draw no region and are there to be compared",
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

    def measuring(self) -> dict[str, Any]:
        """Those that decide what a region is measured to be, whatever is asked about it, as plain JSON values."""
        asked = {"kinds", "evaluation_kinds", "rows", "phrasings", "variants", "order"}
        return self.model_dump(mode="json", exclude=asked)

    def weights(self, side: str) -> dict[Kind, float]:
        """Of the kinds that can be drawn on a side ("train", or another for evaluation), in the order of ``KINDS``."""
        given = self.kinds if side == "train" else self.evaluation_kinds
        return {kind: given[kind] for kind in KINDS if given.get(kind)}


def region_sources() -> tuple[str, ...]:
    """Every source whose regions can become instructions, in the order in which builds read them."""
    return (*buildable_sources(), *SETS)


class SplitSettings(Section):
    """Which images are trained on. Those of refCOCO, refCOCO+ and refCOCOg keep the side of their published split."""

    train_parts: int = Field(default=17, ge=1)
    test_parts: int = Field(default=4, ge=0)
    near_duplicate_bits: int = Field(
        default=6,
        ge=0,
        le=32,
        description="images whose 64-bit perceptual hashes differ in at most so many bits share a side",
    )
    exclude_evaluation_images: bool = Field(
        default=True,
        description="train on no image of any evaluation split of refCOCO, refCOCO+ or refCOCOg; false: as the papers",
    )


class InstructionBuildConfig(Section):
    """Everything that ``build-instructions`` needs."""

    output: str = Field(description="folder or fsspec URL that the dataset is written to")
    seed: int = 0
    limit: int | None = Field(default=None, ge=1, description="at most so many images of each source: a preview")
    shard_size: int = Field(default=200, ge=1, description="images per task")
    workers: int = Field(default=2, ge=1, le=MOST_WORKERS, description="tasks that run at the same time")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="where tasks run; 'threads' is {kind: threads}")
    resume: Literal["always", "if_possible", "never"] = Field(
        default="always",
        description="always: go on, refuse a folder with another configuration; if_possible: accept a changed one"
        " and reuse what it leaves valid; never: refuse a folder that holds anything",
    )
    images: Literal["embed", "reference", "thumbnail"] | None = Field(
        default=None, description="pixels in the dataset: the file's own bytes (default), none, or small images"
    )
    rows_per_file: int = Field(default=250, ge=1, description="rows per Parquet file, one row group each")
    sources: dict[str, SourceConfig] = Field(
        default_factory=dict, description="by name; a source without a root is left out"
    )
    points: Path | None = Field(
        default=None,
        description="a built dataset of points of the same sources: its sentences are expressions of the parts that"
        " they describe a point of, and its points theirs",
    )
    instructions: InstructionSettings = InstructionSettings()
    split: SplitSettings = SplitSettings()
    publish: PublishConfig = PublishConfig()

    _runner_is_a_section = model_validator(mode="before")(runner_as_section)

    @field_validator("sources")
    @classmethod
    def _check_sources(cls, value: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in value:
            if name not in (known := region_sources()):
                raise ValueError(
                    f"no source of regions '{name}': expected one of {', '.join(known)}{suggest(name, known)}"
                )
        return value

    @field_validator("output")
    @classmethod
    def _readable(cls, output: str) -> str:
        if "://" in output and not output.startswith("file://"):
            return output
        return readable_output(output.removeprefix("file://"))

    @property
    def open_sources(self) -> dict[str, SourceConfig]:
        """The sources that have a root, in the order in which they are read."""
        return {
            name: self.sources[name] for name in region_sources() if name in self.sources and self.sources[name].root
        }

    def reader_options(self, name: str) -> dict[str, Any]:
        """The options with which the reader of a source is opened."""
        options = dict(self.sources[name].options)
        if name in SETS and not self.split.exclude_evaluation_images:
            options.setdefault("exclude_evaluation_images", False)
        return options

    def dataset_settings(self) -> dict[str, Any]:
        """The settings that can change a row, without secrets, as plain JSON values."""
        left_out = {"points", "output", "workers", "runner", "shard_size", "resume", "publish"}
        settings = self.model_dump(mode="json", exclude=left_out)
        settings["sources"] = {
            name: {key: value for key, value in settings["sources"][name].items() if key not in ("root", "points")}
            for name in self.open_sources
        }
        if self.instructions.order == "outline":
            del settings["instructions"]["order"]  # as before there were others
        if self.points is not None:
            settings["points"] = identify_points(self.points)
        clean: dict[str, Any] = hide_secrets(settings)
        return clean
