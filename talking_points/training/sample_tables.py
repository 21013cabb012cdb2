"""Tables of what a policy has sampled, a JSON line each, in the order of the steps."""

from __future__ import annotations

import json
from pathlib import Path

from talking_points.regular_files import read_text
from talking_points.whole_files import write_text


def rewind(table: Path, step: int) -> None:
    """Remove from a table of samples what an interrupted run wrote at ``step`` and later: it will be written again."""
    if not table.exists():
        return
    kept = []
    for line in read_text(table).splitlines(keepends=True):
        # Of the last line, half may have been written.
        if not line.endswith("\n") or json.loads(line)["step"] >= step:
            break
        kept.append(line)
    write_text(table, "".join(kept))
