"""Sizes: the paper's 7B, one that trains from scratch on two CPU cores, and one between that speed is measured on."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.omg_llava.chat import TURN_END
from talking_points.models.omg_llava.configuration import SPECIAL_TOKENS


def paper_config(tokenizer: PreTrainedTokenizerBase | None = None) -> TalkingPointsConfig:
    """OMG-LLaVA-7B: ConvNeXt-L, OMG-Seg, InternLM2-chat-7B; every default is the paper's or the official one.

    With a tokenizer other than the release's, the token ids are that tokenizer's.
    """
    config = TalkingPointsConfig()
    if tokenizer is not None:
        config.update(special_token_ids(tokenizer))
        config.text_config.update(text_token_ids(tokenizer))
    return config


def tiny_config(tokenizer: PreTrainedTokenizerBase, image_size: int = 128, stem_stride: int = 2) -> TalkingPointsConfig:
    """The same architecture in about 3 million parameters for images of 128 pixels.

    Every coarsest cell, 8 * ``stem_stride`` pixels wide, is a visual token, so that 128 pixels still give 8 x 8 of
    them. The Gaussian's size relative to the image is twice the default. Questions say no more than they must, for
    short sequences. Everything but the vision path is trained, without LoRA.
    """
    return TalkingPointsConfig(
        vision_config={
            "hidden_sizes": [32, 64, 96, 128],
            "depths": [1, 1, 2, 1],
            "patch_size": stem_stride,
            "layer_scale_init_value": 0.1,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            **text_token_ids(tokenizer),
        },
        image_size=image_size,
        decoder_size=64,
        decoder_heads=4,
        pixel_decoder_layers=1,
        deformable_points=2,
        pixel_decoder_ffn_size=128,
        group_norm_groups=8,
        query_decoder_layers=3,
        query_decoder_ffn_size=128,
        num_queries=8,
        num_classes=16,
        num_prototypes=1,
        prototype_size=32,
        space_to_depth=1,
        prompt_box_half_side=3.0 * image_size / 1024,
        gaussian_sigma=64.0 * image_size / 1024,
        lora_rank=8,
        lora_alpha=4.0,
        question="{keypoint}",
        localizer_question="{description}",
        localizer_answer="[SEG]",
        train_lora=False,
        train_language_model=True,
        train_vocabulary=True,
        **special_token_ids(tokenizer),
    )


def medium_config(tokenizer: PreTrainedTokenizerBase) -> TalkingPointsConfig:
    """About 40 million parameters, 256 pixels: large enough that arithmetic outweighs Python. LoRA as the paper's."""
    return TalkingPointsConfig(
        vision_config={"hidden_sizes": [48, 96, 192, 384], "depths": [2, 2, 6, 2]},
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 10,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            **text_token_ids(tokenizer),
        },
        image_size=256,
        decoder_size=128,
        pixel_decoder_layers=3,
        pixel_decoder_ffn_size=256,
        query_decoder_ffn_size=512,
        num_queries=64,
        num_classes=32,
        num_prototypes=1,
        prototype_size=64,
        space_to_depth=1,
        gaussian_sigma=16.0,
        lora_rank=64,
        lora_alpha=32.0,
        **special_token_ids(tokenizer),
    )


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with OMG-LLaVA's special tokens, learnt from texts. Any string can be encoded.

    Tokens may span words (SuperBPE, Liu et al. 2025): descriptions repeat a few hundred phrases, so that 66 words are
    22 tokens of 1536. They end at punctuation and before "and", "of" and "on": what is said of one axis, the other
    axis and the thing stays apart, and is learnt once instead of in every combination. The words of the chat template
    are tokens of their own.
    """
    markers = ["<unk>", "<s>", "</s>", "<|im_start|>", TURN_END, *SPECIAL_TOKENS, "user\n", "assistant\n", "\n"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[,.;:!?]"), "merged_with_previous"),
            pre_tokenizers.Split(Regex(r" (?=(and|of|on)\b)"), "merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=markers,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        extra_special_tokens=["<|im_start|>", TURN_END, *SPECIAL_TOKENS],
    )


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The configuration fields that name OMG-LLaVA's special tokens."""
    names = {"seg_token_id": "[SEG]", "region_token_id": "<region>", "mark_token_id": "<mark>"}
    ids = {field: tokenizer.convert_tokens_to_ids(token) for field, token in names.items()}
    absent = [names[field] for field, index in ids.items() if index in (None, tokenizer.unk_token_id)]
    if absent:
        raise ValueError(f"the tokenizer lacks {absent}: add OMG-LLaVA's special tokens {SPECIAL_TOKENS} to it")
    return ids


def text_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | list[int]]:
    """The language model's begin, end and padding ids. Generation ends with the turn or with the text."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": [tokenizer.convert_tokens_to_ids(TURN_END), tokenizer.eos_token_id],
        "pad_token_id": tokenizer.pad_token_id,
    }
