"""Run commands one after another in one process, as a program of its own, and say what became of each.

Reads a list of argument lists on stdin; writes for each its exit code, what it printed on stderr, and its seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback

from typer.testing import CliRunner

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app


def main() -> None:
    found, variables = [], dict(os.environ)
    for arguments in json.load(sys.stdin):
        wall, cpu = time.monotonic(), time.process_time()
        done = CliRunner().invoke(app, arguments)
        os.environ.clear()  # a command sets some for its own process
        os.environ.update(variables)
        unexpected = done.exception is not None and not isinstance(done.exception, SystemExit)
        found.append(
            {
                "code": done.exit_code,
                "message": done.stderr,
                "printed": done.stdout,
                "seconds": time.monotonic() - wall,
                "cpu_seconds": time.process_time() - cpu,
                "traceback": "".join(traceback.format_exception(done.exception)) if unexpected else "",
            }
        )
    json.dump({"found": found, "torch": "torch" in sys.modules}, sys.stdout)


if __name__ == "__main__":
    main()
