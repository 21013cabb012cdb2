"""Tiny models of the real architectures with random weights: the same code paths, no download.

Their layouts are those of ``models.stand_in_chat``, but what they say depends on what they are asked.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from talking_points.models.stand_in_chat import write_llama, write_llava

_CONTEXT = 1024


def _sharpen(model: PreTrainedModel, _tokenizer: object) -> None:
    """Wider weights than the usual initialisation: greedy choices are then no matter of rounding."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)


def build_tiny_llama(folder: Path, seed: int = 0) -> Path:
    """Write a text-only Llama to ``folder`` and return it."""
    torch.manual_seed(seed)
    return write_llama(folder, _sharpen, context=_CONTEXT)


def build_tiny_llava(folder: Path, seed: int = 0) -> Path:
    """Write a LLaVA to ``folder`` and return it."""
    torch.manual_seed(seed)
    return write_llava(folder, _sharpen, context=_CONTEXT)


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
