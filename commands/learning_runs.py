"""What ``make learn``, ``make poses`` and ``make outlines`` share: a learning run, here and now, with its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from commands.console import KEPT, exit_codes
from commands.local import local_orchestration
from commands.orchestrator import claim_port, orchestrator
from talking_points.terminal import show


def run_here(output: Path, run: Callable[[], str]) -> None:
    """Print the table that ``run`` returns, and where the report lies. ``run`` imports its flow itself: Prefect must
    find the server's address when it is imported.
    """
    with exit_codes(KEPT):
        local_orchestration(verbose=False, records=(output / "records").resolve())
        with orchestrator(claim_port()):
            table = run()
        show(table)
        show(output / "report.json")
