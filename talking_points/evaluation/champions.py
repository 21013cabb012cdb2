"""Which run of a folder is the champion, and the way back to the one before it; without torch.

Runs are folders that are read, loaded and published by the names in these files, which somebody else may have written:
a name of a run is a name, and leads nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from talking_points.config import ConfigError
from talking_points.json_depth import check_depth
from talking_points.locks import only_writer
from talking_points.regular_files import read_bytes
from talking_points.whole_files import describe_misfit, read_json, write_json

_RESTORE = "write the entry of the run to go on with, from history.jsonl, or remove the file to begin anew"
_MOST = 400
"""Champions that followed each other, at most: each holds the one before it."""

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$")]
Score = Annotated[float, Field(allow_inf_nan=False)]


@with_config(ConfigDict(strict=True, extra="allow"))
class _Champion(TypedDict):
    run: RunName
    mpck: Score
    previous: dict[str, Any] | None


@with_config(ConfigDict(strict=True, extra="allow"))
class _Interval(TypedDict):
    low: Score
    high: Score


@with_config(ConfigDict(strict=True, extra="allow"))
class _Change(TypedDict):
    difference: Score


@with_config(ConfigDict(strict=True, extra="allow"))
class _Entry(TypedDict):
    """A line of ``history.jsonl``; the first runs of an older folder have no control."""

    run: RunName
    at: Annotated[str, Field(pattern=r"^[0-9A-Z:.+-]{1,40}$")]
    mpck: Score
    interval: _Interval
    against: RunName | None
    difference: _Change | None
    promoted: bool
    above_text_only: NotRequired[_Change | None]


_CHAMPION: TypeAdapter[_Champion] = TypeAdapter(_Champion)
_ENTRY: TypeAdapter[_Entry] = TypeAdapter(_Entry)


def champion_of(folder: Path) -> dict[str, Any] | None:
    """The entry of the champion in a folder of runs, or None before the first run.

    Raises ``InputError`` for a file of another form, also where it is about an earlier champion.
    """
    path = folder / "champion.json"
    if not path.exists():
        return None
    champion: dict[str, Any] = read_json(path, _RESTORE, _CHAMPION, _MOST)
    entry = champion["previous"]
    while entry is not None:
        try:
            entry = _CHAMPION.validate_python(entry)["previous"]
        except ValueError as error:
            raise ConfigError(
                f"{path}: an earlier champion is damaged ({describe_misfit(error)}): {_RESTORE}"
            ) from None
    return champion


def restore_previous(folder: Path) -> dict[str, Any]:
    """Make the champion before the current one the champion again; raises ``ConfigError`` when there is none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} has no earlier champion to go back to: expected the folder of the runs")
    with only_writer(folder, "a choice of the champion"):
        champion = champion_of(folder)
        previous: dict[str, Any] | None = champion and champion["previous"]
        if previous is None:
            raise ConfigError(f"{folder} has no earlier champion to go back to: expected the folder of the runs")
        write_json(folder / "champion.json", previous)
    return previous


def read_history(path: Path) -> list[dict[str, Any]]:
    """The entries of all finished runs, oldest first. Raises ``ConfigError`` for a line that is none."""
    rows = []
    for number, line in enumerate(read_bytes(path).split(b"\n") if path.exists() else [], start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
            check_depth(row)
            _ENTRY.validate_python(row)
            rows.append(row)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path}, line {number} is damaged, perhaps cut off in the middle ({describe_misfit(error)}): remove "
                "that line; a run without a line is judged again"
            ) from error
    return rows
