"""``python -m talking_points``: the command line, where the ``talking-points`` script is not on the path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
        del sys.path[0]  # the working folder, whose modules are not ours
    # The command line stands on the floors above this package, which knows of it no more than its name.
    importlib.import_module("commands.cli").main()
