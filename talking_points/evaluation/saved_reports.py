"""Reports of earlier evaluations, gathered for the paper's tables under the keys of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from talking_points.config import ConfigError
from talking_points.evaluation.paper import FIGURES, ROWS, TITLES
from talking_points.evaluation.reports import COMPARISONS, Report

_KNOWN = {*ROWS, *(figure.keys[0] for figure in FIGURES)}


def read_reports(given: Sequence[str]) -> dict[str, Report]:
    """Reports by row, from ``KEY=REPORT.json``, or from files and folders of files that are named after their rows.

    Raises ``ConfigError`` for a key that is no row's, for a row that is given twice, and for what is no report.
    """
    found: dict[str, Path] = {}
    for text in given:
        for key, path in _expand_name(text):
            if key not in _KNOWN:
                raise ConfigError(
                    f"{path}: the paper's tables have no row '{key}'; expected one of {', '.join(ROWS)}, for one table "
                    f"alone after its name ({', '.join(TITLES)}), e.g. figure_1_ground_truth. Give files of other "
                    "names as KEY=REPORT.json, one by one"
                )
            if key in found:
                raise ConfigError(f"two reports for the row '{key}': {found[key]} and {path}; give one of them")
            found[key] = path
    return {key: _read(path) for key, path in found.items()}


def read_folder(path: Path) -> dict[str, Report]:
    """Every report that one evaluation left in a folder, by its description set; of a file that one.

    Raises ``ConfigError`` where there is none.
    """
    return {key: _read(file) for key, file in _expand_name(str(path))}


def _expand_name(text: str) -> list[tuple[str, Path]]:
    """The keys and files that one argument stands for."""
    path = Path(text)
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if file.name != COMPARISONS]
        if not files:
            raise ConfigError(f"{path} holds no report: expected the output of an evaluation, with a JSON file per row")
        return [(file.stem, file) for file in files]
    if path.is_file():
        return [(path.stem, path)]
    key, separator, file_name = text.partition("=")
    if not separator:
        raise ConfigError(f"no file or folder {path}: expected reports as KEY=REPORT.json, or a folder of them")
    return [(key, Path(file_name))]


def _read(path: Path) -> Report:
    try:
        return Report.load(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}; expected a report that talking-points evaluate wrote"
        ) from error
