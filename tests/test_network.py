"""Nobody waits for what does not answer, at the end of the program neither."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from commands import orchestrator
from talking_points.config import ConfigError

HANGING = """
import time
from talking_points.network import answer_within
try:
    answer_within(0.1, lambda: time.sleep(100))
except TimeoutError:
    print("given up")
print(answer_within(10, lambda: "answered"))
try:
    answer_within(10, lambda: 1 / 0)
except ZeroDivisionError:
    print("raised")
"""


def test_a_program_ends_without_what_it_gave_up() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["given", "up", "answered", "raised"]


def test_a_server_of_prefect_that_never_answers_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{hole.getsockname()[1]}/api")
        with pytest.raises(ConfigError, match=r"found none that answers \(timed out\)"):
            orchestrator.find_configured_server()
