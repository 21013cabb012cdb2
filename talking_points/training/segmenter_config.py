"""Configuration of a segmenter's training: sections beside those of the other stages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from talking_points.config import Section
from talking_points.training.config import RolloutStage, StageConfig, TrainConfig, VisionConfig
from talking_points.training.mask_rewards import DEFAULT_REWARDS, REWARDS


class InstructionFiles(Section):
    """The rows of an instruction dataset that are learnt from."""

    root: Path | None = Field(default=None, description="folder that build-instructions has left")
    limit: int | None = Field(default=None, ge=1, description="at most so many questions, drawn by seed")


class SegmenterStage(StageConfig):
    """Supervised fine-tuning: the loss is over the answers alone. ``model`` are choices of ``SegmenterConfig``."""

    kinds: list[str] = Field(default_factory=list, description="kinds of questions that are learnt; none: all")
    phrasing: Literal["rows", "own"] = Field(
        default="rows",
        description="rows: as the dataset asks and answers; own: the model's short questions, bare lists",
    )


class RefineStage(RolloutStage):
    """Reinforcement by what the answers say (GSPO). A batch is a rollout's questions, of all processes together."""

    kinds: list[str] = Field(default=["text_to_mask", "point_to_mask"], description="none: all that there are")
    group: int = Field(default=8, ge=2, description="answers sampled per question")
    updates: int = Field(default=4, ge=1, description="updates from one rollout, each on its share of the questions")
    objective: Literal["gspo", "grpo"] = "gspo"
    rewards: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_REWARDS), description="weights of the terms of the reward, by name"
    )
    reward_side: int = Field(default=512, ge=16, description="pixels of the longer side that masks are compared at")
    max_new_tokens: int | None = Field(default=None, ge=1, description="default: the model's own")

    @field_validator("accumulation")
    @classmethod
    def _one(cls, value: int) -> int:
        if value > 1:
            raise ValueError(f"reinforcement runs without accumulation: expected 1, found {value}")
        return value

    @field_validator("rewards")
    @classmethod
    def _known_rewards(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(REWARDS))
        if unknown or not value:
            raise ValueError(f"expected terms of {', '.join(REWARDS)}; found {', '.join(unknown) or 'none'}")
        if any(not 0 <= weight < float("inf") for weight in value.values()) or not any(value.values()):
            raise ValueError(f"expected weights of at least 0, one of them above it; found {value}")
        return value


class ControlConfig(Section):
    """More supervised training for as much CPU time as reinforcement took: what ``make outlines`` compares it with."""

    learning_rate: float = Field(default=5e-4, gt=0, description="peak of the further cycle of rates")
    max_steps: int | None = Field(default=None, ge=1, description="default: as many as take the same CPU time")


class SegmenterConfig(TrainConfig):
    """Everything that training and refining a segmenter need."""

    dataset: str = Field(default="", description="not used: instructions are named by the section instructions")
    preset: Literal["tiny", "image_text"] = "tiny"  # type: ignore[assignment]  # a foreign model instead of the paper's
    coordinates: Literal["unit"] = Field(default="unit", description="what is written: shares of the image's size")
    lora_rank: int = Field(default=64, ge=1, description="of the adapters of preset image_text")
    lora_alpha: float = Field(default=128.0, gt=0)
    memory_gb: float = Field(default=1.5, ge=0, description="of decoded images that preset image_text keeps")
    lattice: int = Field(default=128, ge=2, le=1000, description="steps of the tiny preset's coordinates")
    instructions: InstructionFiles = InstructionFiles()
    segmenter_vision: VisionConfig = VisionConfig()
    segmenter: SegmenterStage = SegmenterStage(epochs=12, learning_rate=5e-4, weight_decay=0.01)
    refine: RefineStage = RefineStage(epochs=1, learning_rate=1e-4, batch_size=32)
    control: ControlConfig = ControlConfig()
    segmenter_path: str | None = Field(default=None, description="what is refined; default: output/segmenter")

    @model_validator(mode="after")
    def _starts(self) -> SegmenterConfig:
        if self.preset == "image_text" and not self.start:
            raise ValueError(
                "preset image_text adapts a model of others: expected start, a folder or a repository such as "
                "Qwen/Qwen2.5-VL-7B-Instruct, found none"
            )
        return self
