"""Configuration of the Point Answerer: CapeLLM's sizes, formats and the choices that its paper leaves open."""

# Annotations are not postponed here: @strict checks every value against its type.

import math
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import Dinov2Config, LlamaConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class AnswererConfig(PreTrainedConfig):
    r"""DINOv2, a linear projector and a Llama. The defaults are the paper's 8B.

    vision_config: DINOv2; its `image_size` is that of the crops, its positions are interpolated at conversion.
    text_config: the language model, a base model without a chat template.
    stem: how pixels become the first tokens: DINOv2's one convolution, or several small ones, which learn faster
        from random weights.
    lora_rank, lora_alpha, lora_dropout: adapters on queries and values of both models (8, 16, 0.05 officially).
    vision_lora_rank, vision_lora_alpha: other values on the vision side; None for the same.
    lora_active: whether the adapters are part of the model, or merged or not yet added.
    crop_padding: side of the crop as a multiple of the box's longer side. The official code has 1.0, at which
        keypoints on the border of tight boxes fall outside.
    question: asks for a keypoint, with `{keypoint}` in it.
    describe: whether a description, where there is one, stands between question and answer.
    outline, list_keypoints: whether a sentence about the conversation, or all names of the set, stand before it.
    head: "text" writes coordinates; "token" gives them by an MLP from the hidden state of the end token, which is then
        the whole answer (Table 8), of `coordinate_hidden_size` (512), `coordinate_activation` and `coordinate_output`.
    answer_end: the tokenizer's end token, or the text `end_text` as in the official code.
    decimals: digits of a coordinate. half_bin: whether half a step is added to a coordinate that was read.
    rounds_per_conversation: k, rounds of one training conversation; the most that a cumulative answer looks back on.
    max_length: tokens of a conversation; longer ones are refused, never cut.
    attention_weight: in training, of a loss on answers that do not look at the image token which shows the keypoint,
        where conversations share a reading. It helps models that start from random weights; the paper has none.
    blind: whether the model is given zeros for its image, a control that can only learn from the texts.
    trained_categories: names of what the model was trained on; None where that is not known.
    """

    model_type = "capellm"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(
            config_class=Dinov2Config,
            init_kwargs={
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 224,
                "patch_size": 14,
                "layer_norm_eps": 1e-6,
            },
        ),
        "text_config": SubConfigSpec(
            config_class=LlamaConfig,
            init_kwargs={
                "vocab_size": 128256,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 131072,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 500000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
                "bos_token_id": 128000,
                "eos_token_id": 128001,
                "pad_token_id": 128001,
            },
        ),
    }

    # A dict, a config or None when given; a Dinov2Config and a LlamaConfig afterwards.
    vision_config: Any = None
    text_config: Any = None
    stem: Literal["patch", "convolution"] = "patch"
    lora_rank: int = 8
    lora_alpha: float | int = 16
    lora_dropout: float | int = 0.05
    vision_lora_rank: int | None = None
    vision_lora_alpha: float | int | None = None
    lora_active: bool = False
    crop_padding: float | int = 1.25
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    question: str = "At which point of this image is the {keypoint} of this object? Give its coordinates."
    describe: bool = True
    outline: bool = False
    list_keypoints: bool = False
    head: Literal["text", "token"] = "text"
    coordinate_hidden_size: int = 512
    coordinate_activation: Literal["relu", "gelu"] = "relu"
    coordinate_output: Literal["sigmoid", "linear"] = "sigmoid"
    coordinate_init: Literal["default", "centre"] = "default"
    answer_end: Literal["token", "text"] = "token"
    end_text: str = "</s>"
    decimals: int = 3
    half_bin: bool = False
    rounds: Literal["independent", "cumulative"] = "independent"
    rounds_per_conversation: int = 4
    max_length: int = 2048
    attention_weight: float | int = 0
    blind: bool = False
    trained_categories: list[str] | None = None
    tie_word_embeddings: bool = False

    def validate_architecture(self) -> None:
        """Refuse sizes and texts that do not fit together, naming them."""
        size, patch = self.image_size, self.patch_size
        if size % patch:
            raise ValueError(f"the image side must be a multiple of the patch: got {size} and {patch}")
        if "{keypoint}" not in self.question:
            raise ValueError(f"the question must hold {{keypoint}}, found {self.question!r}")
        if not 1 <= self.decimals <= 4:
            raise ValueError(f"decimals must be 1 to 4, found {self.decimals}")
        if self.head == "token" and (self.answer_end == "text" or self.rounds == "cumulative"):
            raise ValueError("head token: expected answer_end token and rounds independent; its answers are no text")
        if not 0 <= self.attention_weight < math.inf:
            raise ValueError(f"attention_weight must be at least 0, found {self.attention_weight}")
        if not 0 < self.crop_padding < math.inf:
            raise ValueError(f"crop_padding must be positive, found {self.crop_padding}")
        for name, least in (("image_mean", -math.inf), ("image_std", 0)):
            values = getattr(self, name)
            if len(values) != 3 or not all(least < value < math.inf for value in values):
                raise ValueError(f"{name} must be three numbers{' above 0' * (least == 0)}, found {list(values)}")
        text = self.text_config
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(text, name)
            if isinstance(token, int) and not 0 <= token < text.vocab_size:
                raise ValueError(
                    f"{name} must be a token of the vocabulary (0 to {text.vocab_size - 1}), found {token}"
                )
        for name, rank, most in (
            ("lora_rank", self.lora_rank, text.hidden_size),
            ("vision_lora_rank", self.vision_lora_rank, self.vision_config.hidden_size),
        ):
            if rank is not None and not 1 <= rank <= most:
                raise ValueError(f"{name} must be 1 to {most}, the width of what it adapts, found {rank}")
        if self.rounds_per_conversation < 1:
            raise ValueError(f"rounds_per_conversation must be at least 1, found {self.rounds_per_conversation}")

    @property
    def image_size(self) -> int:
        """Side of the crop, in pixels."""
        return int(self.vision_config.image_size)

    @property
    def patch_size(self) -> int:
        """Side of one visual token, in pixels of the crop."""
        return int(self.vision_config.patch_size)

    @property
    def image_tokens(self) -> int:
        """How many tokens stand for the image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def query_size(self) -> int:
        """Size of the hidden state that the coordinate head reads."""
        return int(self.text_config.hidden_size)

    @property
    def image_token_id(self) -> int:
        """Placeholder of the image's tokens in input ids: one past the vocabulary, never looked up."""
        return int(self.text_config.vocab_size)


def vision_settings(config: Dinov2Config) -> dict[str, Any]:
    """A DINOv2's settings, to make one of another size: without the stages that a backbone derives from its depth."""
    derived = {"out_features", "out_indices", "_out_features", "_out_indices", "stage_names"}
    return {name: value for name, value in config.to_dict().items() if name not in derived}
