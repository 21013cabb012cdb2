"""Tiny chat models in the layouts of the Hub, for rehearsals and tests: LLaVA, Llama, and a Llama with AWQ's 4 bits.

Complete folders: safetensors, configs, a byte-level BPE tokenizer with a chat template, and for LLaVA a processor. Head
sizes are 32, the smallest that the CPU attention kernel of vLLM takes. Whatever it is asked, a model of ``speak`` ends
with the words of ``LOOK``: its random layers run, and hardly change which token follows which.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from talking_points.regular_files import read_text
from talking_points.tensor_files import load_tensors, save_tensors, share_weights

LOOK = "a small dark round spot on its smooth pale surface"
"""What ``speak`` makes a model say; no word comes twice, because each names the next."""
PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
CONTEXT = 8192
"""Tokens that the pipeline's prompts fit into: a small vocabulary writes them with many."""
IMAGE_SIDE, PATCH = 56, 14
VOCABULARY = 512
AWQ_GROUP, _AWQ_BITS = 32, 4
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in each four bits of a packed word, lowest first."""

_ASSISTANT = "assistant:"
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>\n{% endif %}{% endfor %}{% endif %}\n"
    f"{{% endfor %}}{{% if add_generation_prompt %}}{_ASSISTANT}{{% endif %}}"
)
_CORPUS = (
    "system user assistant: The point is located on the cat, which spans most of the image, specifically on its paw, "
    "close to the top edge and toward the right of the cat, and within this paw, it is slightly above the center, "
    "in a region that features a small, round, dark spot on a light brown surface. Describe what is at the very center."
)

Prepare = Callable[[PreTrainedModel, PreTrainedTokenizerFast], None]


def speak(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give a model's token tables weights with which it answers every question with ``LOOK``."""
    words = [*tokenizer.encode(f"{_ASSISTANT} {LOOK}", add_special_tokens=False), tokenizer.eos_token_id]
    first = len(tokenizer.encode(_ASSISTANT, add_special_tokens=False)) - 1
    chain = words[first:]
    if len(set(chain)) < len(chain):
        raise ValueError(f"expected no token twice in what a model says, found {chain}")
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        embeddings.normal_()
        head.normal_(std=0.02)
        for here, following in pairwise(chain):
            head[following] = embeddings[here] / embeddings.shape[1] ** 0.5


def write_llama(folder: Path, prepare: Prepare = speak, *, awq: bool = False, context: int = CONTEXT) -> Path:
    """Write a text-only Llama to ``folder`` and return it; with ``awq`` its layers are packed into four bits."""
    tokenizer = _tokenizer(context)
    model = LlamaForCausalLM(_text_config(tokenizer)).eval()
    prepare(model, tokenizer)
    model.save_pretrained(folder)
    share_weights(folder)
    tokenizer.save_pretrained(folder)
    if awq:
        _to_awq(folder)
    return folder


def write_llava(folder: Path, prepare: Prepare = speak, *, context: int = CONTEXT) -> Path:
    """Write a LLaVA (CLIP tower of 16 patches, projector, Llama) to ``folder`` and return it."""
    tokenizer = _tokenizer(context)
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
        text_config=_text_config(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=(IMAGE_SIDE // PATCH) ** 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config).eval()
    prepare(model, tokenizer)
    model.save_pretrained(folder)
    share_weights(folder)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    _to_hub_layout(folder)
    return folder


def _tokenizer(context: int) -> PreTrainedTokenizerFast:
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
    tokenizer.train_from_iterator([_CORPUS, *[f" {LOOK}"] * 8], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        chat_template=_CHAT_TEMPLATE,
        model_max_length=context,
    )


def _text_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Two layers of 64 channels in two heads."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _to_hub_layout(folder: Path) -> None:
    """Name the vision tower's tensors as published checkpoints do: other engines know only those names."""
    file = folder / "model.safetensors"
    renamed = {
        name.replace("vision_tower.", "vision_tower.vision_model.")
        if "vision_tower." in name and "vision_model." not in name
        else name: tensor
        for name, tensor in load_tensors(file).items()
    }
    save_tensors(renamed, file, metadata={"format": "pt"})


def _to_awq(folder: Path) -> None:
    """Pack the weights of all layers as AutoAWQ's GEMM layout has them; token tables and norms stay as they are."""
    file, config_file = folder / "model.safetensors", folder / "config.json"
    packed: dict[str, Tensor] = {}
    for name, tensor in load_tensors(file).items():
        if ".layers." in name and tensor.dim() == 2:
            packed |= {f"{name.removesuffix('weight')}{part}": value for part, value in pack_awq(tensor).items()}
        else:
            packed[name] = tensor.half()
    save_tensors(packed, file, metadata={"format": "pt"})
    config = json.loads(read_text(config_file))
    config["dtype"] = "float16"
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": _AWQ_BITS,
        "group_size": AWQ_GROUP,
        "zero_point": True,
        "version": "gemm",
    }
    config_file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def pack_awq(weight: Tensor) -> dict[str, Tensor]:
    """``qweight``, ``qzeros`` and ``scales`` of one weight (outputs, inputs): a scale and a zero for each 32 inputs.

    ``qweight`` is int32 (inputs, outputs / 8), ``qzeros`` int32 (inputs / 32, outputs / 8), ``scales`` float16
    (inputs / 32, outputs).
    """
    outputs, inputs = weight.shape
    grouped = weight.float().T.reshape(inputs // AWQ_GROUP, AWQ_GROUP, outputs)
    low, high = grouped.amin(1, keepdim=True).clamp(max=0), grouped.amax(1, keepdim=True).clamp(min=0)
    top = 2**_AWQ_BITS - 1
    scales = ((high - low) / top).clamp(min=1e-5)
    zeros = (-low / scales).round()
    values = (grouped / scales + zeros).round().clamp(0, top).reshape(inputs, outputs)
    return {
        "qweight": _pack(values),
        "qzeros": _pack(zeros.squeeze(1)),
        "scales": scales.squeeze(1).half().contiguous(),
    }


def _pack(values: Tensor) -> Tensor:
    """Eight numbers of four bits into each int32."""
    eights = values.to(torch.int64).unflatten(1, (-1, 8))[..., list(_AWQ_ORDER)]
    words = (eights << torch.arange(0, 32, _AWQ_BITS)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
