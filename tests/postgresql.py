"""A real PostgreSQL on a socket of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands.orchestrator import free_port
from tests.patience import wait_for


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Gives user, host, port and database, as they stand in a URL after ``://``; skips where there is no PostgreSQL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").exists() else []
    if not programs:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    user: list[str] = []
    if os.getuid() == 0:
        # PostgreSQL refuses to run as root.
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and runuser is missing")
        user = ["runuser", "-u", "postgres", "--"]
    # Not below pytest's folders: these are closed to other users.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        data, port = Path(folder) / "data", free_port()
        if user:
            shutil.chown(folder, "postgres")

        def run(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
            command = [*user, str(programs[-1] / program), *arguments]
            return subprocess.run(command, capture_output=True, cwd="/", check=program != "pg_isready")

        run("initdb", "--auth=trust", "--username=prefect", "--no-sync", str(data))
        server = subprocess.Popen(
            [*user, str(programs[-1] / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", data],
            cwd="/",
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: run("pg_isready", "-h", "127.0.0.1", "-p", str(port)).returncode == 0, 60, "PostgreSQL")
            yield f"prefect@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "fast", "stop")
            server.wait(30)
