"""Reinforcement in several processes: every process knows a whole batch, samples answers to its share of it, and learns
from its share.

Losses are means over answers, so that the sum of all processes' losses, each times the share of the answers that it is
a mean of, is the loss of one process; and so are its gradients, which are summed before every update.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from talking_points.models.segmenter import Written
from talking_points.processes import process_state
from talking_points.records import derive_seed

Item = TypeVar("Item")


def divide(count: int, shares: int) -> list[slice]:
    """``count`` things in so many consecutive shares of like size; some are empty where there are too few."""
    edges = np.linspace(0, count, shares + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def own_shares(count: int, shares: int) -> list[tuple[int, slice]]:
    """The shares of this process, with their numbers: one of as many as there are processes, or all where it is alone.

    ``shares`` is the number of processes, or, in one process, that of the run that is to be imitated.
    """
    numbered = list(enumerate(divide(count, shares)))
    state = process_state()
    return [numbered[state.process_index]] if state.num_processes > 1 else numbered


def gather_all(own: Sequence[Item]) -> list[Item]:
    """The items of all processes, in their order."""
    if process_state().num_processes == 1:
        return list(own)
    found: list[Item] = gather_object(list(own))
    return found


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of all processes' values, which each of them gets."""
    if process_state().num_processes > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every process the sum of all processes' gradients; one that has none counts as zero."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)


def no_loss(parameters: Iterable[Tensor]) -> Tensor:
    """The loss of a process without a share: zero, with a gradient of zero."""
    return torch.stack([0.0 * parameter.sum() for parameter in parameters if parameter.requires_grad]).sum()


@contextmanager
def drawing(device: torch.device, seed: int, step: int, share: int) -> Iterator[None]:
    """Random numbers that depend on seed, step and share alone; those of others are as they were afterwards.

    The first share draws what a process draws that is alone.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, step, "rollout", *([share] if share else [])))
        yield


def join_written(parts: Sequence[Written], device: Any) -> Written:
    """Answers of several shares as one; tokens behind the end of an answer are not marked by its mask."""
    if len(parts) == 1:
        return parts[0]
    rows = [row for part in parts for row in part.tokens.to(device)]
    masks = [row for part in parts for row in part.mask.to(device)]
    return Written(
        pad_sequence(rows, batch_first=True),
        pad_sequence(masks, batch_first=True),
        [text for part in parts for text in part.texts],
        [end for part in parts for end in part.finished],
    )
