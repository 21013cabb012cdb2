"""What ends a training before its time, in words that say how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError


class TrainingStoppedError(RuntimeError):
    """Training cannot go on: says why, at which step, and which checkpoint is good."""


@contextmanager
def writing(what: str, advice: str) -> Iterator[None]:
    """Around the writing of files: raises ``TrainingStoppedError`` with the advice where one cannot be written.

    Of a full disk PyTorch tells by a ``RuntimeError``, safetensors by an error of its own.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingStoppedError(f"cannot write {what} ({error}): {advice}") from error
