"""``talking-points status``: what a build has done, from the files it keeps."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from talking_points.config import ConfigError
from tasks.running.build_folder import in_use
from tasks.running.progress import COLUMNS, STATUS_FILE, TEXT_COLUMNS, stage_rows
from tasks.running.shards import WORK
from tasks.running.storage import Storage

_WIDTH = 120
"""Characters that the table needs; a narrower terminal wraps its lines, which hides less than cut columns."""


def print_status(storage: Storage) -> None:
    """One line per stage. Raises ``ConfigError`` when no build wrote to this folder."""
    if not storage.exists(STATUS_FILE):
        raise ConfigError(f"no build found in {storage.root}: expected {STATUS_FILE}")
    try:
        status = storage.read_json(STATUS_FILE)
        table = Table(title=f"{storage.root}: {run_state(status, in_use(storage))}")
        rows = stage_rows(status["stages"])
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{storage.path(STATUS_FILE)} is damaged ({error}): run the build again, which writes it anew"
        ) from error
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", no_wrap=column == "stage")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(table)
    for failure in status["failures"]:
        console.print(f"failed: {failure['stage']}-{failure['shard']}: {failure['error']}", markup=False)


def run_state(status: dict[str, Any], running: bool) -> str:
    """One line about the last run: a run that is recorded as running but holds no lock was killed."""
    state = status["state"]
    if state == "running" and not running:
        state = "killed; run the build again to go on"
    return f"{state}, {status['seconds']:.0f} s in the last run until {status['time']}"


def print_rejected(storage: Storage) -> None:
    """Every rejected row: stage, id, source, image, reason, detail; tab-separated, one per line."""
    columns = ("stage", "id", "source", "image_path", "reason", "detail")
    print("\t".join(columns))
    for path in sorted(storage.fs.find(storage.path(WORK))):
        if not path.endswith(".rejected.parquet"):
            continue
        for row in storage.read_table(path[len(storage.root) + 1 :]).to_pylist():
            print("\t".join(" ".join(row[name].split()) for name in columns))
