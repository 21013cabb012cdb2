"""``talking-points status``: what a build or a training has done, does and has to do, from the files it keeps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from talking_points.config import ConfigError
from talking_points.nearby import folder_near
from talking_points.redacted_console import RedactedConsole
from talking_points.terminal import show, show_json
from talking_points.units import format_duration
from tasks.running.folder_lock import in_use
from tasks.running.lease import ask_to_stop, listen_for_holder
from tasks.running.progress import STATUS_FILE
from tasks.running.stages import WORK
from tasks.running.status_tables import COLUMNS, stage_notes, stage_rows, worker_notes
from tasks.running.storage import Storage

LOOK_EVERY = 2.0
"""Seconds between two looks of ``--watch``; a build writes as often."""
_BEGINS_WITHIN = 5.0
"""Seconds that ``--watch`` waits for a run that may be about to begin, where the last one did not finish."""


def print_status(storage: Storage) -> None:
    """One line per stage, begun or to come. Raises ``ConfigError`` when nothing was built or trained in this folder."""
    RedactedConsole(highlight=False).print(_look(storage)[0])


def print_status_json(storage: Storage) -> None:
    """What is known of the status as one line of JSON, with ``running`` and the ``state`` as it is now."""
    show_json(_look(storage)[1])


def watch_status(storage: Storage) -> None:
    """The table, drawn anew until nothing is running."""
    console = RedactedConsole(highlight=False)
    shown, status = _await_beginning(storage)
    with Live(shown, console=console, auto_refresh=False) as live:
        while status["running"]:
            time.sleep(LOOK_EVERY)
            shown, status = _look(storage)
            live.update(shown, refresh=True)
    if not console.is_terminal:
        # What is drawn over ends its last line on a terminal alone.
        console.line()


def _await_beginning(storage: Storage) -> tuple[Group, dict[str, Any]]:
    """The status, once something runs: a build that is retried takes a moment before it holds its folder."""
    deadline = time.monotonic() + _BEGINS_WITHIN
    while True:
        shown, status = _look(storage)
        if status["running"] or status.get("state") in (None, "finished") or time.monotonic() >= deadline:
            return shown, status
        time.sleep(LOOK_EVERY / 4)


def _look(storage: Storage) -> tuple[Group, dict[str, Any]]:
    """The status as a table and as data: that of the build in this folder, or of the trainings in it."""
    if not storage.is_local or storage.exists(STATUS_FILE):
        return _show_build(storage)
    # They come with torch, which the status of a build does not wait for.
    from commands.training_status import find_trainings, read_training, show_trainings

    trainings = find_trainings(Path(storage.root))
    if not trainings:
        return _show_build(storage)
    stages = [read_training(folder) for folder in trainings]
    running = any(stage["state"] == "training" for stage in stages)
    return show_trainings(storage.output, stages), {"stages": stages, "running": running}


def _show_build(storage: Storage) -> tuple[Group, dict[str, Any]]:
    status = read_status(storage)
    return _show(storage, status), status


def read_status(storage: Storage) -> dict[str, Any]:
    """The status of the last build; one that is recorded as running but holds no lock was killed."""
    if not storage.exists(STATUS_FILE):
        from talking_points.training.made_once import STARTED

        raise ConfigError(
            f"no build found in {storage.place}, nor a training{folder_near(storage.root, STATUS_FILE)}: expected "
            f"{STATUS_FILE}, or folders of stages with {STARTED}"
        )
    try:
        status: dict[str, Any] = storage.read_json(STATUS_FILE)
        status["running"] = in_use(storage)
        if status["state"] == "running" and not status["running"]:
            status["running"] = listen_for_holder(storage) is not None
            status["state"] = "running" if status["running"] else "killed"
        _show(storage, status)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(
            f"{storage.path(STATUS_FILE)} is damaged ({error}): run the build again, which writes it anew"
        ) from error
    return status


def stop_build(storage: Storage) -> str:
    """Ask the build that is writing to an output to stop. Raises ``ConfigError`` where none is."""
    held = ask_to_stop(storage)
    if held is None:
        raise ConfigError(
            f"no build is writing to {storage.output}: 'talking-points status {storage.output}' shows what the last did"
        )
    return (
        f"asked {held.owner} to stop; it does so at its next row, and "
        f"'talking-points status {storage.output}' tells when it has"
    )


def describe_state(status: dict[str, Any]) -> str:
    """One line about the last run, with the time it has to go."""
    hint = "; run the build again to go on" if status["state"] == "killed" else ""
    took = format_duration(status["seconds"])
    when = "so far, at" if status["running"] else "in the last run until"
    line = f"{status['state']}{hint}, {took} {when} {_moment(status['time'])}"
    estimate = status.get("estimate", {})
    if status["running"] and estimate.get("seconds_left"):
        unknown = f", {', '.join(estimate['unknown'])} not yet known" if estimate.get("unknown") else ""
        line += f"; about {format_duration(estimate['seconds_left'])} to go{unknown}"
    return line


def _moment(time: str) -> str:
    """``2026-11-29 20:24:22 UTC``, from the form that files hold."""
    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def print_rejected(storage: Storage) -> None:
    """Every rejected row: stage, id, source, image, reason, detail; tab-separated, one per line."""
    from talking_points.dataset_files import DatasetError, readable, to_rows  # heavy, and of no use to the other views

    columns = ("stage", "id", "source", "image_path", "reason", "detail")
    show("\t".join(columns))
    for path in sorted(storage.fs.find(storage.path(WORK))):
        if not path.endswith(".rejected.parquet"):
            continue
        with readable(path):
            table = storage.read_table(path[len(storage.root) + 1 :])
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise DatasetError(f"{path} lacks the columns {', '.join(missing)}: it is not what a build writes there")
        for row in to_rows(table.select(columns), path):
            show("\t".join(" ".join(str(row[name]).split()) for name in columns))


def _show(storage: Storage, status: dict[str, Any]) -> Group:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for row in stage_rows(status):
        table.add_row(*(Text(cell) for cell in row))
    lines = [f"{failure['stage']}-{failure['shard']} failed: {failure['error']}" for failure in status["failures"]]
    if status.get("error"):
        lines.append(f"failed: {status['error']}")
    heading = f"{storage.output}\n{describe_state(status)}"
    notes = [*stage_notes(status), *worker_notes(status), *lines]
    return Group(*map(Text, (heading, "")), table, *map(Text, notes))
