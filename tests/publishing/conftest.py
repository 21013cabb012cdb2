"""A local Hub, and Python processes that see it as the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.publishing.local_hub import WRITER, LocalHub

ROOT = Path(__file__).resolve().parents[2]

PUBLISH = """
import dataclasses, json, sys
from pathlib import Path
from talking_points.publishing.hub import publish
report = publish(Path(sys.argv[1]), "org/name", **json.loads(sys.argv[2]))
print(json.dumps(dataclasses.asdict(report)))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub") as local:
        yield local


@pytest.fixture
def reached(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The local Hub as this process's Hub, for uploads; the clients' downloads read their settings once, at import."""
    for name, value in {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    return hub


@pytest.fixture
def start(hub: LocalHub, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a Python process whose Hub is the local one."""

    def started(
        code: str, *arguments: object, token: str | None = WRITER, home: str = "home", **variables: str
    ) -> subprocess.Popen[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=own | hub.environment(tmp_path / home, token) | {"PYTHONPATH": str(ROOT)} | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]]) -> Run:
    """Run such a process to its end."""

    def ran(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        process = start(code, *arguments, **options)
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return ran


@pytest.fixture
def publish(run: Run) -> Run:
    """Publish a folder as org/name in another process."""

    def published(output: Path, token: str | None = WRITER, **options: Any) -> subprocess.CompletedProcess[str]:
        return run(PUBLISH, output, json.dumps(options), token=token)

    return published
