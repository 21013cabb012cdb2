"""The numbers a training computes with.

A converted release loads in bfloat16, whose steps of 1/256 swallow an update of 1e-5. So what is trained is float32,
and so are the optimizer's moments, which follow it; what is frozen stays as it was loaded, and autocast lets both meet.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from talking_points.config import ConfigError
from talking_points.processes import process_state
from talking_points.training.config import StageConfig


def check_bf16(setting: str) -> None:
    """Raise ``ConfigError`` where ``setting`` asks for bfloat16 and the CUDA device has no instructions for it.

    What PyTorch emulates is slower than float32.
    """
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"{setting} is true, but the GPU {torch.cuda.get_device_name()} does not compute in bfloat16: "
            f"set {setting}=false to train in float32, or take a GPU of compute capability 8.0 or later"
        )


class Trainable(Protocol):
    """A model that knows which of its weights a training is to move."""

    def prepare_training(self) -> list[str]:
        """Freeze all but what is trained, which becomes float32; returns its names."""

    def to(self, device: Any) -> Any:
        """Move it to a device."""

    def float(self) -> Any:
        """Make all its weights float32."""


def prepare_to_train(model: Trainable, config: StageConfig, seed: int) -> list[str]:
    """Bring a model to its device, frozen but for what is trained; returns the names of the trained weights, float32.

    Without ``config.bf16`` everything becomes float32: there is no autocast then in which two precisions could meet.
    New adapters are drawn by ``seed``; PyTorch's own generator starts differently in every process.
    """
    torch.manual_seed(seed)
    model.to(process_state().device)
    if not config.bf16:
        model.float()
    return model.prepare_training()


def autocast(model: torch.nn.Module, config: StageConfig) -> AbstractContextManager[object]:
    """bfloat16 where the stage computes in it. Every use of a model in training outside its ``forward`` needs it."""
    if not config.bf16:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)


def is_mixed(model: torch.nn.Module) -> bool:
    """Whether frozen weights are in another precision than float32, so that the model computes in autocast alone."""
    return any(weight.dtype != torch.float32 for weight in model.parameters())
