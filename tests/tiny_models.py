"""Tiny models of the real architectures, built from configs with random weights: the same code paths, no download.

``build_tiny_llama`` and ``build_tiny_llava`` write complete model folders in the layout of the Hub: safetensors,
configs, a byte-level BPE tokenizer with a chat template, and for LLaVA a processor. Head sizes are 32, the smallest
that the CPU attention kernel of vLLM takes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
CONTEXT = 1024
IMAGE_SIDE, PATCH = 56, 14
VOCABULARY = 512

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>\n{% endif %}{% endfor %}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)

_CORPUS = (
    "system user assistant: The point is located on the cat, which spans most of the image, specifically on its paw, "
    "close to the top edge and toward the right of the cat, and within this paw, it is slightly above the center, "
    "in a region that features a small, round, dark spot on a light brown surface. Describe what is at the very center."
)


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text round-trips, frequent words of descriptions are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )


def tiny_text_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Two layers of 64 channels in two heads."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _sharpen(model: torch.nn.Module) -> None:
    """Wider weights than the usual initialisation: greedy choices are then no matter of rounding."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)


def build_tiny_llama(folder: Path, seed: int = 0) -> Path:
    """Write a text-only Llama to ``folder`` and return it."""
    tokenizer = build_tiny_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_text_config(tokenizer)).eval()
    _sharpen(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tiny_llava(folder: Path, seed: int = 0) -> Path:
    """Write a LLaVA (CLIP tower of 16 patches, projector, Llama) to ``folder`` and return it."""
    tokenizer = build_tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        projection_dim=64,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=tiny_text_config(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=(IMAGE_SIDE // PATCH) ** 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    _sharpen(model)
    model.save_pretrained(folder)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    _to_hub_layout(folder)
    return folder


def build_tiny_omg_llava(folder: Path, seed: int = 0) -> Path:
    """Write an OMG-LLaVA of the tiny preset to ``folder`` and return it."""
    # The environment of vLLM has another transformers, for which this model is not written.
    from talking_points.models.omg_llava.modeling import OmgLlavaModel
    from talking_points.models.presets import tiny_config, train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["Describe the object in one sentence.", "A dog stands in the image."], 320)
    config = tiny_config(tokenizer)
    config.text_config.initializer_range = 0.2  # at 0.02 a random model writes the same whatever it is asked
    model = OmgLlavaModel(config)
    model.tokenizer = tokenizer
    model.save_pretrained(folder)
    return folder


def _to_hub_layout(folder: Path) -> None:
    """Name the vision tower's tensors as published checkpoints do: other engines know only those names."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    renamed = {
        name.replace("vision_tower.", "vision_tower.vision_model.")
        if "vision_tower." in name and "vision_model." not in name
        else name: tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, file, metadata={"format": "pt"})
