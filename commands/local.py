"""Settings of a flow that runs from the command line, in this process."""

from __future__ import annotations

import os
from pathlib import Path

HEARTBEAT = 30
"""Seconds between two heartbeats of a run, however it is started; ``prefect.yaml`` sets the same number.

Prefect's default is longer than the silence after which ``server.crash_zombies`` takes a run for dead.
"""


RECORDS = "PREFECT_RESULTS_LOCAL_STORAGE_PATH"
"""The variable that names the folder of the result records."""


def local_orchestration(verbose: bool, records: Path | None = None) -> None:
    """Set them in the environment, where variables that are set already win. Call before importing Prefect.

    Nothing is reported to anybody; ``records`` is the folder of the result records, which belong to a dataset.
    """
    if records is not None:
        os.environ.setdefault(RECORDS, str(records))
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT))
    # A busy machine takes longer to start the orchestrator than its own 20 seconds.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    # The orchestrator of a command is stopped with it, and complains of what it was about to write.
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR" if verbose else "CRITICAL")
