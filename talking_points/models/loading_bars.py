"""The bars that libraries draw while they load weights and rows, which are ours to hide where a command has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
from transformers.utils import logging


def hide_loading_bars() -> None:
    """Hide them from now on in this process. Downloads from the Hub, which can take an hour, keep theirs."""
    datasets.disable_progress_bars()
    logging.set_tqdm_hook(_without)


def _without(make: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return make(*arguments, **{**options, "disable": True})
