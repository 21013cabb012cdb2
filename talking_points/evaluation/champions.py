"""Which run of a folder is the champion, and the way back to the one before it; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from talking_points.config import ConfigError
from talking_points.locks import only_writer
from talking_points.whole_files import read_json, write_json

_RESTORE = "write the entry of the run to go on with, from history.jsonl, or remove the file to begin anew"


def champion_of(folder: Path) -> dict[str, Any] | None:
    """The entry of the champion in a folder of runs, or None before the first run."""
    path = folder / "champion.json"
    return read_json(path, _RESTORE) if path.exists() else None


def restore_previous(folder: Path) -> dict[str, Any]:
    """Make the champion before the current one the champion again; raises ``ConfigError`` when there is none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} has no earlier champion to go back to: expected the folder of the runs")
    with only_writer(folder, "a choice of the champion"):
        champion = champion_of(folder)
        if champion is None or champion["previous"] is None:
            raise ConfigError(f"{folder} has no earlier champion to go back to: expected the folder of the runs")
        write_json(folder / "champion.json", champion["previous"])
    return champion["previous"]
