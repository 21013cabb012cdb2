"""A Prefect database as a server leaves it after its first start, made once for all tests that want one of their own,
and the server that all others share.

Prefect's migrations take twenty seconds of a core. What is tested of a first start begins without it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

SHARED = "TALKING_POINTS_TESTS"
"""The variable that names a folder which all processes of a test session share."""


def prefect_home(home: Path) -> str:
    """``home``, for ``PREFECT_HOME``, with a database in it that has all tables and no run."""
    shared = Path(os.environ[SHARED])
    made = shared / "prefect.db"
    with FileLock(shared / "prefect.lock"):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=shared) as folder:
                command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
                environment = os.environ | {"PREFECT_HOME": folder}
                subprocess.run(command, env=environment, check=True, capture_output=True)
                with closing(sqlite3.connect(Path(folder) / "prefect.db")) as database:
                    database.execute("VACUUM INTO ?", (str(made),))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (home / "prefect.db").exists():
        shutil.copyfile(made, home / "prefect.db")
        (home / "prefect.db").chmod(0o600)
    return str(home)


@contextmanager
def shared_server() -> Iterator[str]:
    """The URL of the API of a server on a database of its own, which asks for no password.

    It is what a command starts for its one run, whose transactions wait for each other: four processes write at once.
    """
    from commands import orchestrator
    from commands.processes import start, stop

    with tempfile.TemporaryDirectory(prefix="prefect-shared-", ignore_cleanup_errors=True) as home:
        port = orchestrator.free_port()
        url = f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-P", "-m", "commands.prefect_server", "--port", str(port)]
        environment = os.environ | orchestrator._ONE_RUN | {"PREFECT_HOME": prefect_home(Path(home))}
        server = start(command, environment, folder=Path(home), stdout=subprocess.DEVNULL)
        try:
            orchestrator._wait_until_healthy(server, url)
            yield url
        finally:
            stop(server, 10)
