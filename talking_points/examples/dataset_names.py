"""Whether a dataset of triplets is there, told without reading it."""

from __future__ import annotations

from pathlib import Path

from talking_points.config import ConfigError
from talking_points.hub_names import unavailable
from talking_points.regular_files import open_regular


def check_dataset(name: str, setting: str = "dataset") -> None:
    """Refuse a name behind which there is no dataset, and a folder whose Parquet files are not whole.

    A repository of the Hub need only be in reach. Raises ``ConfigError``.
    """
    expected = f"{setting}: expected the folder of a finished build or a dataset on the Hub"
    advice = "make one with 'talking-points build'"
    folder = Path(name)
    if not folder.exists():
        reason = unavailable(name, "dataset")
        if reason:
            raise ConfigError(f"{expected}; found no dataset at {name}: {reason}; {advice}")
        return
    if not folder.is_dir():
        raise ConfigError(f"{expected}; found the file {name}; name the folder that holds data/")
    files = sorted(folder.glob("data/*.parquet")) or sorted(folder.glob("*.parquet"))
    if not files:
        raise ConfigError(f"{expected}; {folder} has no data/*.parquet; {advice}")
    for file in files:
        with open_regular(file) as stream:
            start = stream.read(8)
            if start == b"version ":
                raise ConfigError(f"{setting}: {file} is a pointer of git-lfs: fetch the file with 'git lfs pull'")
            if file.stat().st_size >= 12:
                stream.seek(-4, 2)
            if start[:4] != b"PAR1" or stream.read(4) != b"PAR1":
                raise ConfigError(
                    f"{setting}: {file} is no Parquet file, or was cut off: run the build again, or fetch it anew"
                )
