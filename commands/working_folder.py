"""The folder in which a command is called is not trusted: what lies there must not change how Prefect runs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from talking_points.config import ConfigError


def refuse_settings(folder: Path) -> None:
    """Raise ``ConfigError`` for a file in ``folder`` that Prefect would take settings from when it is imported.

    These settings can name another server, which would then get what only ours may know, or code to be run.
    """
    for name, settings in (
        ("prefect.toml", _toml(folder / "prefect.toml")),
        ("pyproject.toml", _toml(folder / "pyproject.toml").get("tool", {}).get("prefect", {})),
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
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} in the working folder cannot be read as TOML ({error}), and Prefect would try to: put it right, "
            "move it away or work in another folder"
        ) from error


def _variables(path: Path) -> Iterable[str]:
    if not path.is_file():
        return ()
    try:
        return [name for name in dotenv_values(path, interpolate=False) if name.upper().startswith("PREFECT")]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} in the working folder cannot be read ({error}): move it away") from error
