"""``talking-points init``: the shipped configurations and deployments as files of one's own."""

from __future__ import annotations

from pathlib import Path

from talking_points.config import ConfigError
from talking_points.locks import refuse_links
from talking_points.owners import refuse_closed
from talking_points.regular_files import read_bytes
from talking_points.shipped import CONFIGS, DEPLOYMENTS, config_names


def write_project(folder: Path) -> list[Path]:
    """Write ``configs/`` and ``prefect.yaml`` into ``folder`` and return the files.

    Raises ``ConfigError`` when one of them or a link is there already, before anything is written, or cannot be
    written.
    """
    wanted = {folder / "configs" / name: CONFIGS / name for name in config_names()}
    wanted[folder / "prefect.yaml"] = DEPLOYMENTS
    refuse_closed(folder)
    for path in (folder / "configs", folder / "prefect.yaml"):
        refuse_links(path)
    there = [str(path) for path in wanted if path.exists()]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise ConfigError(
            f"expected a folder without configurations, found {', '.join(there[:3])}{more}: choose another folder, or "
            "move them away to get the shipped ones again"
        )
    try:
        for path, source in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(read_bytes(source))
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error}; choose another folder") from error
    return list(wanted)
