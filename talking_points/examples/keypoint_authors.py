"""Settings of ``describe-keypoints``: who writes about which keypoints, and on which images the descriptor looks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from talking_points.build_config import StepConfig
from talking_points.config import ConfigError, Section
from talking_points.examples.config import KeypointFiles
from talking_points.examples.keypoints import PoseExample
from talking_points.examples.pose_files import check_keypoints
from talking_points.models.model_folders import check_model
from talking_points.sources.coco_keypoints import CocoKeypoints
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets


class DescribeKeypointsConfig(Section):
    """Everything that ``describe-keypoints`` needs."""

    output: Path = Path("build/keypoint-texts")
    author: Literal["rules", "model", "descriptor"] = Field(
        default="rules",
        description="rules: from facts, without a model; model: the section text writes; descriptor: our Point "
        "Descriptor writes about one marked image of each set, and the section text merges",
    )
    sets: list[str] = Field(default_factory=list, description="keys of the keypoint sets; none: all")
    text: StepConfig = Field(
        default=StepConfig(max_tokens=6000),
        description="the language model that writes or merges; backend rules: a program merges",
    )
    rounds: int = Field(default=2, ge=1, description="how often a keypoint is asked for at most")
    compose_refused: bool = Field(
        default=True, description="take the rules' text where none passes the checks; else the file lacks it"
    )
    descriptor: str | None = Field(default=None, description="folder or repository of a Point Descriptor")
    poses: KeypointFiles = Field(
        default=KeypointFiles(), description="the marked images, of the training split; own: also whose keypoints"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _complete(self) -> DescribeKeypointsConfig:
        if self.author == "model" and self.text.backend == "rules":
            raise ValueError("author model: expected a language model in text, for example text.backend=openai")
        if self.author == "descriptor" and not self.descriptor:
            raise ValueError("author descriptor: expected descriptor, the folder of a trained Point Descriptor")
        return self


def check_description_inputs(config: DescribeKeypointsConfig) -> None:
    """Raise ``ConfigError`` for sets that there are not, and for images that are needed and missing."""
    if config.author == "descriptor" or config.poses.own is not None:
        check_keypoints(config.poses, "poses")
    if config.author == "descriptor":
        check_model(str(config.descriptor), "descriptor", "descriptor")
    chosen_sets(config)


def chosen_sets(config: DescribeKeypointsConfig) -> list[KeypointSet]:
    """The sets that are written about: MP-100's, or those of one's own files. Raises ``ConfigError`` for others."""
    if config.poses.own is not None:
        known = {one.key: one for one in CocoKeypoints(config.poses.own).keypoint_sets().values()}
    else:
        known = dict(keypoint_sets())
    unknown = [key for key in config.sets if key not in known]
    if unknown:
        raise ConfigError(f"sets: expected some of {', '.join(sorted(known))}; found {unknown}")
    return [one for key, one in known.items() if not config.sets or key in config.sets]


def choose_support(examples: Iterable[PoseExample], keypoints: KeypointSet) -> PoseExample | None:
    """The object of a set that shows most of its keypoints, of those the one with the largest box."""
    of_set = [one for one in examples if one.keypoints.key == keypoints.key]
    return max(of_set, key=lambda one: (int(one.visible.sum()), one.box[2] * one.box[3], one.id), default=None)
