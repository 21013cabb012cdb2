"""The optimizer of a vision path that starts from random weights and has minutes to learn."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

WEIGHT_DECAY = 0.01


class MuonAdamW:
    """Muon (Jordan et al. 2024) for the matrices of linear layers, AdamW for everything else, in one cycle of rates.

    ``learning_rate`` is AdamW's; Muon's updates are scaled to the same size. Only parameters of ``module`` that require
    gradients are trained; those of ``heads``, whose rows are classes, stay with AdamW. Gradients are clipped to a norm
    of 1.
    """

    def __init__(self, module: nn.Module, heads: Iterable[nn.Module], learning_rate: float, steps: int) -> None:
        classes = {id(parameter) for head in heads for parameter in head.parameters()}
        linear = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear)} - classes
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in self.parameters if id(parameter) in linear]
        others = [parameter for parameter in self.parameters if id(parameter) not in linear]
        self._optimizers: list[Optimizer] = [
            Muon(matrices, lr=learning_rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
            AdamW(others, lr=learning_rate, weight_decay=WEIGHT_DECAY),
        ]
        self._schedules = [
            OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False)
            for optimizer in self._optimizers
        ]

    def step(self) -> None:
        """Apply the gradients, forget them, and move on in the cycle."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
