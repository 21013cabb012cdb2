"""Qwen's processor for images and text, without the one for videos: that needs torchvision, which images do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, BatchFeature

from talking_points.models.model_limits import check_counts

PATCHES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Model types whose images become as many tokens as they have patches."""


class PatchProcessor:
    """Tokenizer and image processor of a model whose images become as many placeholders as they have patches."""

    def __init__(self, tokenizer: Any, image_processor: Any, image_token: int) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_token = image_token

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        """As the tokenizer does."""
        return str(self.tokenizer.apply_chat_template(messages, **options))

    def batch_decode(self, tokens: Any, **options: Any) -> list[str]:
        """As the tokenizer does."""
        return list(self.tokenizer.batch_decode(tokens, **options))

    def __call__(self, text: Sequence[str], images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        """Inputs of the model for texts with one image each."""
        seen = self.image_processor(images=list(images), return_tensors="pt")
        merged = self.image_processor.merge_size**2
        token = self.tokenizer.convert_ids_to_tokens(self.image_token)
        counts = [int(grid.prod()) // merged for grid in seen["image_grid_thw"]]
        grown = [one.replace(token, token * count, 1) for one, count in zip(text, counts, strict=True)]
        written = self.tokenizer(grown, padding=True, return_tensors="pt", add_special_tokens=False)
        kinds = (written["input_ids"] == self.image_token).to(torch.int64)
        return BatchFeature({**written, **seen, "mm_token_type_ids": kinds})

    def save_pretrained(self, folder: str | Path) -> None:
        """Both into one folder."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def open_processor(name: str | Path, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """The processor of a model: transformers' own, or Qwen's without videos. No code of the model runs unasked."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
    check_counts(config.to_dict(), str(name))
    if config.model_type not in PATCHES:
        return AutoProcessor.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
    images = AutoImageProcessor.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
    return PatchProcessor(tokenizer, images, config.image_token_id)
