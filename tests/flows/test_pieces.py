"""Sampling and assembling in pieces give the bytes of one task, and what was made of them is not made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from commands.status import read_status
from talking_points.build_config import BuildConfig
from tasks import assemble, sample
from tasks.running import published_files
from tasks.running.runner import BuildFailed
from tasks.running.shards import ShardFailed
from tasks.running.status_tables import stage_rows
from tasks.running.storage import Storage
from tests.flows.building import build, is_kept, made, published

pytestmark = pytest.mark.usefixtures("orchestrator")

SETTINGS = (
    "rows_per_file=5",
    "shard_size=4",
    "sampling.reserve=0.4",
    "limit=22",
    "verification.min_words=28",  # some rows are rejected, and reserves take their place
    "near_duplicates={threshold: 0.3, remove: true}",
)


@pytest.fixture(scope="module")
def one_task(orchestrator: None, drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    build(output, drawn, *SETTINGS)
    assert made(output)["sample"] == made(output)["assemble"] == 1
    return output


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are many."""
    monkeypatch.setattr(sample, "AT_ONCE", 10)
    monkeypatch.setattr(assemble, "AT_ONCE", 10)


@pytest.mark.usefixtures("small")
def test_pieces_give_the_same_bytes_and_a_failed_one_is_made_alone(
    one_task: Path, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = tmp_path / "out", published_files.write_rows

    def broken(path: Path, *arguments: Any) -> Any:
        if ".00004.data" in path.name:
            raise ShardFailed("the disk is gone")
        return write(path, *arguments)

    monkeypatch.setattr(assemble, "write_rows", broken)
    with pytest.raises(BuildFailed, match=r"1 shard\(s\) failed: assemble-4; .*the disk is gone"):
        build(output, drawn, *SETTINGS)
    files = len(list((one_task / "data").iterdir()))
    first = made(output)
    assert first["assemble"] == files, "the decision, and all files but one"
    # The choice, three parts in which the candidates lie, and as many shards of the sample at a time as make ten rows.
    assert first["sample"] > 6
    assert not (output / "data").exists()

    monkeypatch.undo()
    monkeypatch.setattr(assemble, "AT_ONCE", 10)
    build(output, drawn, *SETTINGS)
    assert made(output) == {"assemble": 2}
    assert published(output) == published(one_task)
    status = read_status(Storage(output))
    row = dict(zip(("shards", "reused", "failed", "rows"), stage_rows(status)[-1][1:], strict=False))
    rows = sum(pq.read_metadata(file).num_rows for file in (output / "data").iterdir())
    assert row == {"shards": f"{files + 2}/{files + 2}", "reused": str(files), "failed": "0", "rows": str(rows)}
    assert status["stages"]["sample"]["rows"] > rows, "reserves as well"
    planned = BuildConfig(output=str(output), rows_per_file=5)
    assert assemble.count_tasks(planned, rows) == files + 2
    for stage in ("sample", "assemble"):
        assert not (output / ".work" / stage / "pieces").exists()
    assert is_kept(output, drawn, *SETTINGS)
    # One task would make the same, and does not.
    monkeypatch.undo()
    assert build(output, drawn, *SETTINGS)["executed_shards"] == 0
    (output / "README.md").write_text("damaged")
    build(output, drawn, *SETTINGS)
    assert made(output) == {"assemble": 1}
    assert published(output) == published(one_task)
