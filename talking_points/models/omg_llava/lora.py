"""LoRA adapters (Hu et al., 2022) inside the language model, through peft's layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from talking_points.models.omg_llava.configuration import OmgLlavaConfig

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHARED_INPUT = ("q_proj", "k_proj", "v_proj")
HEAD = "lm_head"


def inject_lora(language_model: nn.Module, config: OmgLlavaConfig) -> None:
    """Wrap the linear layers of the language model's blocks in place. A fresh adapter changes no output.

    Adapters are float32 until a checkpoint says otherwise, also where the layers that they adapt are not.
    """
    official = config.lora_layout == "official"
    targets = [*LINEAR_LAYERS, HEAD] if config.lora_on_head or official else list(LINEAR_LAYERS)
    inject_adapter_in_model(
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=targets,
            layers_to_transform=config.lora_blocks,
            layers_pattern=None if config.lora_blocks is None else "layers",
            bias="none",
        ),
        language_model,
    )
    if official:
        _share_input_factors(language_model)
    for name, parameter in language_model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
    # New layers come in training mode, whose dropout would disturb a model that is being evaluated.
    language_model.train(language_model.training)


def _share_input_factors(language_model: nn.Module) -> None:
    """Give k and v the input factor of q, as the adapter of one fused projection has a single one."""
    for module in language_model.modules():
        adapted = [getattr(module, name, None) for name in SHARED_INPUT]
        first = adapted[0]
        if isinstance(first, LoraLayer):
            for other in adapted[1:]:
                assert isinstance(other, LoraLayer)
                other.lora_A = first.lora_A


def unshare_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a file holds them, in which no two names may stand for one tensor: k and v get copies of q's."""
    copied = tuple(f".{name}.lora_A." for name in SHARED_INPUT[1:])
    return {name: value.clone() if any(part in name for part in copied) else value for name, value in weights.items()}


def merge_lora(language_model: nn.Module) -> None:
    """Add every adapter to its layer's weight and put the plain layer back."""
    for name, module in list(language_model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(language_model.get_submodule(parent), child, module.get_base_layer())
    del language_model.peft_config  # where peft notes which adapters it injected


@contextmanager
def lora_disabled(language_model: nn.Module) -> Iterator[None]:
    """The language model without its adapters, for as long as the context lasts."""
    layers = [module for module in language_model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
