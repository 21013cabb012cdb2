"""Answers that are paid for: nobody learns from a bill that workers on several machines did not share them."""

from __future__ import annotations

from typing import Any

import pytest

from talking_points.build_config import BuildConfig, StepConfig
from talking_points.config import ConfigError
from tasks.running.build_checks import check_shared_answers

ASKS = {"generate": StepConfig(backend="openai", model="m", endpoint="http://127.0.0.1:1/v1")}
SHARED = {"request_cache": "postgresql://points@database.example/answers"}
PRICED = {"prices": {"m": {"tokens_in": 1.0, "tokens_out": 1.0}}, "budget": "5 USD"}


@pytest.mark.parametrize(
    ("settings", "machines", "says"),
    [
        ({}, 3, ""),  # rules ask nobody
        (ASKS, 1, ""),
        (ASKS | SHARED, 3, ""),
        (ASKS | SHARED | PRICED, 3, ""),
        (ASKS | PRICED, 1, ""),
        (ASKS, 3, "the answers to generate are kept in files, safe for one machine, and workers run on 3: "),
        (ASKS | PRICED, 2, "budget: the answers to generate are kept in files, "),
    ],
)
def test_answers_in_files_are_for_one_machine(settings: dict[str, Any], machines: int, says: str) -> None:
    config = BuildConfig(output="out", **settings)
    if says.startswith("budget"):
        with pytest.raises(ConfigError, match=f"^{says}.*request_cache=postgresql://"):
            check_shared_answers(config, machines)
        return
    said = check_shared_answers(config, machines)
    assert said.startswith(says)
    assert bool(said) == bool(says)
