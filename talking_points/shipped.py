"""Files that are shipped with this package for people to use as they are or to edit: configurations, deployments."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""Beside this package in a checkout and in an installation."""

DEPLOYMENTS = CONFIGS / "prefect.yaml"


def find_config(path: str | Path) -> Path:
    """The file at ``path``, or where there is none the shipped one of this name: ``[configs/]build/rules.yaml``."""
    given = Path(path)
    return given if given.exists() else shipped_config(given) or given


def shipped_config(path: str | Path) -> Path | None:
    """The shipped file that ``path`` names, ``[configs/]build/rules.yaml``; None where there is none."""
    given = Path(path)
    inside = given.relative_to("configs") if given.parts[:1] == ("configs",) else given
    shipped = CONFIGS / inside
    return shipped if not given.is_absolute() and ".." not in inside.parts and shipped.is_file() else None


def config_names() -> list[str]:
    """The shipped configurations, as ``--config`` takes them."""
    return sorted(file.relative_to(CONFIGS).as_posix() for file in CONFIGS.glob("*/*.yaml"))
