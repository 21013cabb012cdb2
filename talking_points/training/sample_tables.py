"""Tables of what a policy has sampled, a JSON line each, in the order of the steps."""

from __future__ import annotations

import json
from pathlib import Path

from talking_points.errors import InputError
from talking_points.regular_files import read_bytes
from talking_points.whole_files import write_text


def rewind(table: Path, step: int) -> None:
    """Remove from a table of samples what an interrupted run wrote at ``step`` and later: it will be written again."""
    if not table.exists():
        return
    kept = []
    for number, line in enumerate(read_bytes(table).splitlines(keepends=True), start=1):
        # Of the last line, half may have been written.
        if not line.endswith(b"\n") or _step(line, table, number) >= step:
            break
        kept.append(line.decode("utf-8"))
    write_text(table, "".join(kept))


def _step(line: bytes, table: Path, number: int) -> int:
    try:
        found = json.loads(line.decode("utf-8"))["step"]
        if not isinstance(found, int):
            raise TypeError(f"a step of the type {type(found).__name__}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{table}, line {number} is damaged ({str(error)[:200]}): expected an object with a step; move the file "
            "away and run again, which begins it anew"
        ) from error
    return found
