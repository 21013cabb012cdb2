"""Configuration of the Point Answerer's training: a section beside those of the other stages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from talking_points.config import Section
from talking_points.examples.config import KeypointFiles
from talking_points.training.config import StageConfig, TrainConfig


class AnswererStage(StageConfig):
    """Training on conversations; what the paper leaves open has the official value, but for the crop's padding.

    ``model`` are choices of ``AnswererConfig``, by field name. A batch is of conversations, or of objects where an
    object's conversations share one reading of its crop.
    """

    k: int = Field(default=4, ge=1, description="rounds of a conversation")
    texts: str | None = Field(default="rules", description="author or file of the descriptions; null: names alone")
    name_only: float = Field(default=0.0, ge=0, le=1, description="share of the batches that leave descriptions out")
    paraphrase: bool = Field(default=False, description="draw the wording of every question from nine (Table 6)")
    step_by_step: bool = Field(
        default=False, description="a conversation says first what the object is (Table 7); it is not asked later"
    )
    pack_instance: bool = Field(
        default=False, description="all conversations about an object share a crop, which is read once"
    )
    rounds_per_step: int | None = Field(
        default=None, ge=1, description="at most so many conversations of an object a step, where they are packed"
    )
    scale: float = Field(default=0.3, ge=0, lt=1, description="deviation of the crop's random size")
    rotation: float = Field(default=40.0, ge=0, description="most degrees of a random turn")
    rotation_share: float = Field(default=0.5, ge=0, le=1)
    flip: bool = Field(default=False, description="mirror half the images and exchange the names of both sides")
    blind: bool = Field(default=False, description="the control: the same model and steps without its images")
    train_vision: Literal["adapters", "frozen", "all"] = Field(
        default="adapters", description="what of a pretrained vision model is trained (paper, Table 5)"
    )
    language_model: str | None = Field(default=None, description="folder or repository; default: the preset's")
    vision_model: str | None = Field(default=None, description="folder or repository; default: DINOv2 ViT-L/14")
    memory_gb: float = Field(default=1.5, ge=0, description="of decoded images that a process keeps")

    @property
    def stage(self) -> str:
        """The folder below the output, where none is named."""
        return "answerer-blind" if self.blind else "answerer"


class PoseVisionConfig(Section):
    """Pretraining of a small vision model on the keypoints of the training images: which cell shows which."""

    steps: int = Field(default=0, ge=0, description="0: it starts from random weights")
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    bf16: bool = False


class AnswererConfig(TrainConfig):
    """Everything that ``train-answerer`` needs."""

    dataset: str = Field(default="", description="what a localizer of the same run learns; an answerer learns poses")
    preset: Literal["tiny", "small", "paper"] = "tiny"  # type: ignore[assignment]  # one more than the others have
    image_size: int = Field(default=96, ge=32, description="side of the tiny preset's crop, pixels")
    grid: int = Field(default=8, ge=2, description="visual tokens along a side of the tiny preset's crop")
    poses: KeypointFiles = KeypointFiles()
    pose_vision: PoseVisionConfig = PoseVisionConfig()
    answerer: AnswererStage = AnswererStage(epochs=12, learning_rate=5e-4, weight_decay=0.01)

    @model_validator(mode="after")
    def _tiny(self) -> AnswererConfig:
        if self.preset != "tiny" and self.pose_vision.steps:
            raise ValueError(
                "pose_vision.steps is for the tiny preset, whose vision starts from random weights; the others start "
                "from DINOv2: leave it out"
            )
        _refuse_for_rows(self)
        if self.image_size % self.grid:
            raise ValueError(f"expected image_size to be a multiple of grid, found {self.image_size} and {self.grid}")
        return self

    def blind_twin(self) -> AnswererConfig:
        """The same training, steps and seed for a model that never sees an image."""
        return self.model_copy(update={"answerer": self.answerer.model_copy(update={"blind": True})})


def _refuse_for_rows(config: AnswererConfig) -> None:
    """Raise ``ValueError`` for settings that need named keypoints, where the points of a dataset are learnt instead."""
    stage = config.answerer
    wrong = {
        "answerer.flip": stage.flip,
        "answerer.name_only": stage.name_only,
        "answerer.texts=null": stage.texts is None,
        "pose_vision.steps": config.pose_vision.steps,
    }
    if config.poses.rows is not None and any(wrong.values()):
        raise ValueError(
            f"poses.rows: described points have one name and the viewer's left and right, with which "
            f"{', '.join(name for name, given in wrong.items() if given)} cannot be: leave it out, as "
            "configs/train/answerer_rows.yaml does"
        )


def texts_file(config: AnswererConfig) -> Path | None:
    """The file of descriptions, where they are not the embedded author's."""
    texts = config.answerer.texts
    return None if texts in (None, "rules") else Path(str(texts))
