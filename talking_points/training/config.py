"""Training configuration: one YAML file for all stages, validated as a whole before any expensive work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from talking_points.config import Section
from talking_points.examples.config import FeatureConfig, KeypointsConfig, refuse_former_keys
from talking_points.training.rewards import REWARDS


class StageConfig(Section):
    """One training stage; the defaults that the paper gives are set in configs/train/paper.yaml."""

    epochs: float = Field(default=10, gt=0)
    max_steps: int | None = Field(default=None, ge=1, description="replaces epochs")
    batch_size: int = Field(default=8, ge=1, description="points per step and process")
    processes: int = Field(default=1, ge=1, description="processes that train together, one per GPU")
    points_per_image: int = Field(
        default=1, ge=1, description="up to so many points of one image in a batch, which read it together"
    )
    accumulation: int = Field(default=1, ge=1, description="batches whose mean loss makes a step")
    learning_rate: float = Field(default=2e-4, gt=0)
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices of a model that starts from random weights"
    )
    scheduler: str = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    bf16: bool = Field(default=False, description="bfloat16 autocast; weights in training stay float32")
    gradient_checkpointing: bool = False
    save_steps: int = Field(default=500, ge=1)
    eval_steps: int = Field(default=500, ge=1)
    eval_points: int = Field(default=500, ge=1, description="held-out points that the running metric is taken on")
    validation: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the training images that the running metric is taken on instead of being trained on; "
        "0: it is taken on the test split, for curves only (adaptation: not at all)",
    )
    log_steps: int = Field(default=20, ge=1)
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations without a better one, and save the best"
    )
    keep: int = Field(default=2, ge=1, description="newest checkpoints kept, and with patience the best one")
    text: Literal["description", "draft", "object_caption", "local_caption"] = Field(
        default="description", description="the column that is learnt"
    )
    withhold_points: bool = Field(
        default=False, description="ablation: the descriptor is shown the image's centre instead of every point"
    )
    model: dict[str, Any] = Field(default_factory=dict, description="choices of TalkingPointsConfig, by field name")

    @model_validator(mode="after")
    def _can_choose(self) -> StageConfig:
        if self.patience is None:
            return self
        if not self.validation:
            raise ValueError(
                "patience chooses weights by the running metric, which must then not be that of the test split: set "
                "validation to the share of the training images to take it on, e.g. 0.05, or leave patience out"
            )
        if self.save_steps % self.eval_steps:
            raise ValueError(
                f"patience keeps one of the evaluated models: expected save_steps to be a multiple of eval_steps "
                f"({self.eval_steps}), found {self.save_steps}"
            )
        return self


class LocalizerConfig(StageConfig):
    """``blind`` trains the text-only control: the same model and budget, every image replaced by nothing."""

    blind: bool = False
    shuffled: bool = Field(default=False, description="learn exchanged descriptions: must not beat the centre")

    @property
    def stage(self) -> str:
        """The folder below the output, where none is named: the control never takes the localizer's place."""
        return "text-only" if self.blind else "localizer"


class RolloutStage(StageConfig):
    """Reinforcement by what sampled answers earn. A batch is a rollout's questions, shared by all processes."""

    group: int = Field(default=8, ge=1, description="answers sampled per question")
    updates: int = Field(default=1, ge=1, description="updates from one rollout, each on its share of the questions")
    objective: Literal["gspo", "grpo"] = Field(default="grpo", description="grpo: without a ratio, one update alone")
    clip_low: float = Field(default=3e-4, gt=0, description="GSPO: below 1 the ratio of an answer counts down to this")
    clip_high: float = Field(default=4e-4, gt=0, description="and above 1 up to this")
    beta: float = Field(default=0.0, ge=0, description="weight of the divergence from the policy before")
    temperature: float = Field(default=1.0, gt=0)
    advantage: str = Field(default="group", description="group: over the spread of a group's rewards; centred: not")
    sample_steps: int = Field(default=50, ge=1, description="write samples every so many steps")

    @field_validator("advantage")
    @classmethod
    def _check_advantage(cls, value: str) -> str:
        from talking_points.training.grpo import ADVANTAGES  # with torch

        return _one_of("advantage", value, ADVANTAGES)

    @model_validator(mode="after")
    def _whole_rollouts(self) -> RolloutStage:
        if self.objective == "grpo" and self.updates > 1:
            raise ValueError("objective grpo has no ratio to clip and allows one update per rollout: set updates to 1")
        if self.accumulation > 1 and self.updates > 1:
            raise ValueError(f"rollouts are held without accumulation: expected 1, found {self.accumulation}")
        if self.updates > self.batch_size:
            raise ValueError(f"expected at most batch_size ({self.batch_size}) updates, found {self.updates}")
        if self.updates * self.processes > self.batch_size:
            raise ValueError(
                "every process needs a question in every update: expected a batch_size of at least updates x "
                f"processes ({self.updates * self.processes}), found {self.batch_size}"
            )
        for name in ("save_steps", "max_steps"):
            value = getattr(self, name)
            if value is not None and value % self.updates:
                raise ValueError(
                    f"checkpoints stand between rollouts: expected {name} to be a multiple of updates "
                    f"({self.updates}), found {value}"
                )
        return self


class AdaptConfig(RolloutStage):
    """Adaptation by reward (paper, section 3.4 and appendix A.3)."""

    group: int = Field(default=3, ge=1, description="descriptions sampled per point")
    beta: float = Field(default=0.1, ge=0, description="weight of the divergence from the policy before adaptation")
    reward: str = "neg_mse"
    advantage_std: Literal["population", "sample"] = "population"
    max_new_tokens: int = Field(default=256, ge=1)
    last_blocks: int = Field(default=2, ge=1, description="blocks whose adapters are trained")
    lora_rank: int | None = Field(default=None, ge=1, description="default: the model's own")
    sample_steps: int = Field(
        default=50, ge=1, description="write samples and an image of one group every so many steps"
    )

    @field_validator("reward")
    @classmethod
    def _check_reward(cls, value: str) -> str:
        return _one_of("reward", value, REWARDS)


class VisionConfig(Section):
    """Pretraining of the vision path on part masks, for models that start from random weights."""

    steps: int = Field(default=0, ge=0, description="0: the vision path is kept as it is")
    sources: dict[str, Path] = Field(default_factory=dict, description="roots of part-annotated sources, by name")
    images: int = Field(default=1000, ge=1, description="at most so many of each source")
    separate: bool = Field(
        default=False, description="the sources share no image with the dataset, which is then not looked at"
    )
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    backbone_steps: int = Field(default=0, ge=0, description="steps of the backbone alone, which come first")
    backbone_batch_size: int = Field(default=16, ge=1)
    backbone_learning_rate: float = Field(default=4e-3, gt=0)
    backbone_bf16: bool = Field(default=False, description="bfloat16 autocast in the backbone's own steps")


class TransferConfig(KeypointsConfig):
    """Adapt on ``categories``, test on others; AP-10K by default in the different-order setting of the paper."""

    test_categories: list[str] = Field(default_factory=list, description="what adaptation never sees")
    limit: int | None = Field(default=None, ge=1, description="at most so many points of either")

    @model_validator(mode="before")
    @classmethod
    def _take_families(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source", "ap10k") == "ap10k":
            return {"categories": ["Bovidae"], "test_categories": ["Canidae"], **values}
        return values


class TrainConfig(Section):
    """Everything that the training flows need."""

    output: Path = Field(description="folder that receives models, checkpoints, logs and curves")
    dataset: str = Field(description="folder or Hub repository of the triplets")
    revision: str | None = None
    streaming: bool = False
    limit: int | None = Field(default=None, ge=1, description="at most so many training points")
    seed: int = 0
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: PyTorch's")
    preset: Literal["tiny", "paper"] = "tiny"
    image_size: int = Field(default=128, ge=64, description="frame of the tiny preset, pixels")
    stem_stride: int = Field(default=2, ge=1, description="pixels of the tiny preset's finest features")
    vocabulary_size: int = Field(default=1024, ge=300, description="of the tiny preset's tokenizer")
    start: str | None = Field(default=None, description="checkpoint to start from; the paper preset needs one")
    start_revision: str | None = None
    allow_drawn: bool = Field(default=False, description="the paper preset may learn from drawn stand-ins")
    features: FeatureConfig = FeatureConfig()
    vision: VisionConfig = VisionConfig()
    descriptor: StageConfig = StageConfig()
    localizer: LocalizerConfig = LocalizerConfig(epochs=15, learning_rate=1e-5)
    adapt: AdaptConfig = AdaptConfig(epochs=3, learning_rate=5e-6, batch_size=10)
    keypoints: TransferConfig = TransferConfig()
    descriptor_path: str | None = Field(default=None, description="the descriptor to adapt; default: output/descriptor")
    localizer_path: str | None = Field(default=None, description="the rewarding localizer; default: output/localizer")

    @model_validator(mode="before")
    @classmethod
    def _refuse_former_keys(cls, values: Any) -> Any:
        return refuse_former_keys(values)

    def text_only(self) -> TrainConfig:
        """The same with a localizer that never sees an image: the text-only control."""
        return self.model_copy(update={"localizer": self.localizer.model_copy(update={"blind": True})})


def _one_of(kind: str, value: str, known: dict[str, Any]) -> str:
    if value not in known:
        raise ValueError(f"expected a {kind} of {', '.join(known)}; found {value!r}")
    return value
