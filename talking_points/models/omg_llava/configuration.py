"""Configuration of OMG-LLaVA (Zhang et al., 2024): OMG-Seg's frozen vision path and an InternLM2 language model."""

# Annotations are not postponed here: @strict checks every value against its type.

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import ConvNextConfig, LlamaConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

IMAGE_PLACEHOLDER = "<image>"
SPECIAL_TOKENS = ("[SEG]", "<p>", "</p>", "<region>", "<mark>")
"""Tokens that OMG-LLaVA adds to InternLM2's vocabulary, in the order that fixes their ids."""


@strict
class OmgLlavaConfig(PreTrainedConfig):
    r"""Sizes and token ids of one OMG-LLaVA. The defaults are the released 7B model.

    vision_config: the ConvNeXt trunk; its four raw stage outputs are used. `patch_size` is the stride of the
        first of them (4), the others are twice as coarse each.
    text_config: the language model. InternLM2 is a Llama with fused and regrouped projections, so it runs as one.
    image_size: side of the padded square image, in pixels.
    decoder_size: width of the pixel decoder and of the query decoder.
    num_queries: learned object queries of the main pass.
    num_classes, num_prototypes, prototype_size: text prototypes per class of the open-vocabulary class head, without
        the all-zero prototype of the void class, which is implied.
    logit_scale: temperature of the class head; logits are cosines times `exp(logit_scale)`.
    space_to_depth: side of the block of coarsest cells that makes one visual token.
    prompt_box_half_side: half the side, in pixels of the padded frame, of the pseudo-box that stands for every
        visual prompt in the position encoding.
    image_token_index: placeholder id of `<image>` in input ids; never looked up in the embedding.
    seg_token_id, region_token_id, mark_token_id: ids of `[SEG]`, `<region>` and `<mark>`. The released `<mark>`
        lies beyond the embedding table: visual prompts replace it before the look-up.
    task_decoder: whether [SEG] masks have a query decoder of their own (the refseg and gcg checkpoints).
    lora_rank, lora_alpha, lora_dropout: adapters of the language model's linear layers (512, 256, 0.05 in the
        official recipe, a scale of 0.5).
    lora_layout: "separate" (default): q, k and v have an adapter each, as a Llama has them, and `lora_on_head` says
        whether the head has one. "official": as in the release, whose q, k and v are one projection: they share the
        low-rank input factor A, and the head has an adapter.
    lora_on_head: whether the language-model head carries an adapter too.
    lora_blocks: numbers of the blocks that carry adapters; None for all. Where it is given, the head carries none.
    lora_active: whether the adapters are part of the model (and of its checkpoint) or merged or not yet added.
    """

    model_type = "omg_llava"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(
            config_class=ConvNextConfig,
            init_kwargs={"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]},
        ),
        "text_config": SubConfigSpec(
            config_class=LlamaConfig,
            init_kwargs={
                "vocab_size": 92548,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
                "bos_token_id": 1,
                "eos_token_id": [92542, 2],
                "pad_token_id": 2,
            },
        ),
    }

    # A dict, a config or None when given; a ConvNextConfig and a LlamaConfig afterwards.
    vision_config: Any = None
    text_config: Any = None
    image_size: int = 1024
    decoder_size: int = 256
    decoder_heads: int = 8
    pixel_decoder_layers: int = 6
    pixel_decoder_ffn_size: int = 1024
    deformable_levels: int = 3
    deformable_points: int = 4
    group_norm_groups: int = 32
    query_decoder_layers: int = 9
    query_decoder_ffn_size: int = 2048
    num_queries: int = 300
    num_classes: int = 133
    num_prototypes: int = 4
    prototype_size: int = 768
    logit_scale: float | int = 4.6052
    space_to_depth: int = 2
    prompt_box_half_side: float | int = 3.0
    task_decoder: bool = False
    image_token_index: int = -200
    seg_token_id: int = 92544
    region_token_id: int = 92547
    mark_token_id: int = 92548
    lora_rank: int = 512
    lora_alpha: float | int = 256.0
    lora_dropout: float | int = 0.05
    lora_layout: Literal["separate", "official"] = "separate"
    lora_on_head: bool = False
    lora_blocks: list[int] | None = None
    lora_active: bool = False
    tie_word_embeddings: bool = False

    def validate_architecture(self) -> None:
        """Refuse sizes that do not fit together, naming both."""
        for divisor, name in ((self.group_norm_groups, "group_norm_groups"), (self.decoder_heads, "decoder_heads")):
            if self.decoder_size % divisor:
                raise ValueError(f"decoder_size must be a multiple of {name}: got {self.decoder_size} and {divisor}")
        if self.decoder_size % 4:
            raise ValueError(f"decoder_size must be a multiple of 4 for the sine encodings: got {self.decoder_size}")
        if not 1 <= self.deformable_levels < len(self.vision_config.depths):
            raise ValueError(
                "deformable_levels must leave at least one backbone stage for the mask features: "
                f"got {self.deformable_levels} of {len(self.vision_config.depths)} stages"
            )

    @property
    def visual_token_size(self) -> int:
        """Features of one visual token before the perception prior: a block of coarsest backbone cells."""
        return self.vision_config.hidden_sizes[-1] * self.space_to_depth**2

    @property
    def query_size(self) -> int:
        """Features of one object or prompt as the projector takes it: query feature and query position."""
        return 2 * self.decoder_size

    @property
    def visual_token_stride(self) -> int:
        """Pixels of the padded frame along one side of a visual token."""
        patch = self.vision_config.patch_size
        return int(patch) * 2 ** (len(self.vision_config.depths) - 1) * self.space_to_depth
