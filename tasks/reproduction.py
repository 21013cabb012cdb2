"""The two steps of a reproduction that no other flow has: converting the release, writing the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.evaluation.saved_reports import read_reports
from talking_points.evaluation.tables import write_tables


@task(name="convert-omg-llava", persist_result=False, cache_policy=NO_CACHE)
def convert(release: Sequence[Path], output: Path) -> str:
    """Convert the official files into a folder, in bfloat16; returns it."""
    from talking_points.models.omg_llava.conversion import convert_release

    return str(convert_release(release, output).output)


@task(name="tables", persist_result=False, cache_policy=NO_CACHE)
def tables(folders: Sequence[Path], output: Path) -> list[str]:
    """Write the paper's tables from the reports in these folders; returns the files."""
    return [str(path) for path in write_tables(read_reports([str(folder) for folder in folders]), output)]
