"""The folder in which a command is called is not trusted: what lies there must not change how Prefect runs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from talking_points.config import ConfigError
from talking_points.regular_files import read_text


def refuse_settings(folder: Path) -> None:
    """Raise ``ConfigError`` for a file in ``folder`` that Prefect would take settings from when it is imported.

    These settings can name another server, which would then get what only ours may know, or code to be run.
    """
    for name, settings in (
        ("prefect.toml", _toml(folder / "prefect.toml")),
        ("pyproject.toml", _tool_settings(folder / "pyproject.toml")),
        (".env", _variables(folder / ".env")),
    ):
        if settings:
            raise ConfigError(
                f"expected no settings of Prefect in the working folder, found {', '.join(sorted(settings))} in "
                f"{folder / name}: move that file away or work in another folder; what you want to set yourself, set "
                "as an environment variable or in a profile ('prefect config set')"
            )


def trust_no_modules() -> None:
    """Let no Python process that is started from now on take modules from its working folder."""
    os.environ["PYTHONSAFEPATH"] = "1"


def _toml(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} in the working folder cannot be read as TOML ({error}), and Prefect would try to: put it right, "
            "move it away or work in another folder"
        ) from error


def _tool_settings(path: Path) -> dict[str, Any]:
    """The table ``[tool.prefect]``."""
    table: Any = _toml(path)
    for name in ("tool", "prefect"):
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"expected '{name}' to be a table in {path}, found {type(table).__name__}, and Prefect would try to "
                "read it: put it right, move it away or work in another folder"
            )
    return dict(table)


def _variables(path: Path) -> Iterable[str]:
    try:
        return [n for n in dotenv_values(stream=StringIO(_text(path)), interpolate=False) if _is_of_prefect(n)]
    except ValueError as error:
        raise ConfigError(f"{path} in the working folder cannot be read ({error}): move it away") from error


def _is_of_prefect(name: str) -> bool:
    return name.upper().startswith("PREFECT")


def _text(path: Path) -> str:
    """What the file says; "" where there is none, or a folder, which Prefect passes over.

    Nothing else may stand there: what a pipe gives now is not what it gives Prefect.
    """
    try:
        if not os.path.lexists(path) or path.is_dir():
            return ""
        return read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} in the working folder cannot be read ({error}), and Prefect would try to: move it away or work "
            "in another folder"
        ) from error
