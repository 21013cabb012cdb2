"""A Prefect database as a server leaves it after its first start, made once for all tests that want one of their own.

Prefect's migrations take twenty seconds of a core. What is tested of a first start begins without it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
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
