"""Whether a dataset of triplets is there, told without reading it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pyarrow.parquet import read_schema

from talking_points.config import ConfigError
from talking_points.hub_names import unavailable
from talking_points.nearby import folder_near
from talking_points.regular_files import open_regular


def check_dataset(name: str, setting: str = "dataset", texts: Collection[str] = ("description",)) -> None:
    """Refuse a name behind which there is no dataset, and a folder whose Parquet files are not whole.

    Nor may they lack a column that is read, among them ``texts``. A repository of the Hub need only be in reach. Raises
    ``ConfigError``.
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
        raise ConfigError(f"{expected}; found the file {name}{folder_near(name)}; name the folder that holds data/")
    files = sorted(folder.glob("data/*.parquet")) or sorted(folder.glob("*.parquet"))
    if not files:
        raise ConfigError(f"{expected}; {folder} has no data/*.parquet{folder_near(folder)}; {advice}")
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
    # Told now: what reads rows imports for a while, and a training has its vision path to make before that.
    from talking_points.dataset_files import check_columns, readable
    from talking_points.examples.points import COLUMNS

    for file in files:
        with readable(file):
            schema = read_schema(file)
        check_columns(schema, {*COLUMNS, *texts, "image"}, file)


def refuse_dataset(output: str | Path) -> None:
    """Refuse a dataset's folder as output: its card would be lost. Raises ``ConfigError``."""
    if (Path(output) / "manifest.json").is_file():
        raise ConfigError(f"output: expected a folder of its own, found the dataset {output}: choose another")
