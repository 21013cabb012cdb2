"""LoRA adapters (Hu et al., 2022) on queries and values of both models, through peft's layers."""

from __future__ import annotations

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from talking_points.models.capellm.configuration import AnswererConfig

TARGETS = ("q_proj", "v_proj")


def inject_lora(model: nn.Module, config: AnswererConfig, vision: bool) -> None:
    """Wrap the query and value maps of every block in place. A fresh adapter changes no output."""
    rank, alpha = config.lora_rank, config.lora_alpha
    if vision:
        rank, alpha = config.vision_lora_rank or rank, config.vision_lora_alpha or alpha
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(TARGETS),
        bias="none",
    )
    inject_adapter_in_model(settings, model)
    model.train(model.training)  # new layers come in training mode, whose dropout would disturb an evaluation
