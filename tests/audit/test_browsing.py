"""The rows that a person looks at: filters, search, one row at a time, quickly."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from talking_points.audit.browsing import LIGHT, DatasetRows, Filter, RejectedFilter, list_writers
from talking_points.dataset_files import DatasetError
from talking_points.dataset_schema import triplet_schema
from tests.publishing.small_dataset import ROWS, row, write_dataset


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> DatasetRows:
    return DatasetRows.read(with_rejected(write_dataset(tmp_path_factory.mktemp("rows") / "dataset")))


def with_rejected(output: Path) -> Path:
    refused = [
        {
            "id": f"x{number}",
            "source": "ade20k_part234",
            "stage": "verify",
            "reason": reason,
            "detail": "because",
            "text": text,
        }
        for number, (reason, text) in enumerate(
            [("too_short", "a dog"), ("left_right", "the left ear"), ("too_short", "")]
        )
    ]
    (output / "rejected").mkdir()
    pq.write_table(pa.Table.from_pylist(refused), output / "rejected" / "verify.parquet")
    return output


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Filter(), 18),
        (Filter(split="test"), 6),
        (Filter(source="partimagenet"), 6),
        (Filter(object="dog", split="train"), 4),
        (Filter(part="ear"), 6),
        (Filter(part="wheel"), 0),
        (Filter(words="ROW 3"), 2),
        (Filter(words="row 13:"), 1),
        (Filter(words="draft blob"), 18),
        (Filter(words="100%_[a-z]*"), 0),
        (Filter(flag="nothing"), 0),
    ],
)
def test_filters(rows: DatasetRows, wanted: Filter, count: int) -> None:
    assert len(rows.find(wanted)) == count


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (RejectedFilter(), 3),
        (RejectedFilter(reason="too_short"), 2),
        (RejectedFilter(reason="too_short", words="dog"), 1),
        (RejectedFilter(source="partimagenet"), 0),
    ],
)
def test_rejected_rows(rows: DatasetRows, wanted: RejectedFilter, count: int) -> None:
    assert len(rows.find_rejected(wanted)) == count
    assert rows.choices("reason", rejected=True) == {"too_short": 2, "left_right": 1}


@pytest.mark.parametrize(
    ("scores", "groups"),
    [
        ([1, 5, None, 4], {"1": 6, "5": 6, "none": 6, "4": 6}),
        ([0.05, 0.95, 1.0, None], {"0.9 to 1.0": 12, "0.0 to 0.1": 6, "none": 6}),
        ([None], {"none": 24}),
    ],
)
def test_judged_rows_are_found_by_their_score(
    scores: list[float | None], groups: dict[str, int], tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "dataset", rows={"train": 16, "test": 8})
    for path in (folder / "data").iterdir():
        table = pq.read_table(path)
        given = pa.array([scores[number % len(scores)] for number in range(table.num_rows)], pa.float32())
        pq.write_table(table.append_column("judge_score", given), path)
    judged = DatasetRows.read(folder)
    assert judged.choices("judge") == groups
    for group, count in groups.items():
        found = judged.find(Filter(judge=group))
        assert len(found) == count
        assert {judged.row(int(number))["judge"] for number in found} == {group}
    assert not len(judged.find(Filter(judge="7")))


def test_rows_without_a_judge_have_no_score_to_find(rows: DatasetRows) -> None:
    assert "judge" not in rows.row(0)
    assert not len(rows.find(Filter(judge="5")))


def test_a_row_is_read_whole(rows: DatasetRows) -> None:
    for number in (0, 11, 17):
        found = rows.row(number)
        assert found["description"] == rows.lines([number])[0]["description"]
        assert "image" not in found
        assert len(found["image_sha256"]) == 64
    assert rows.choices("split") == ROWS
    assert list_writers(rows.row(0))[-1] == ("seed", "0")
    assert list_writers(rows.row(0))[0] == ("object caption", "rules prompt 000000000000")


def test_a_folder_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no rows in"):
        DatasetRows.read(tmp_path)


def many_rows(output: Path, count: int, per_file: int = 250) -> Path:
    """Rows of the paper's size, with flags and without pixels."""
    (output / "data").mkdir(parents=True)
    one = row(0, b"", "reference")
    for start in range(0, count, per_file):
        table = [
            one
            | {
                "id": f"{number:016x}",
                "description": f"Row {number}: a point",
                "flags": ["odd"] if number % 7 == 0 else [],
            }
            for number in range(start, min(start + per_file, count))
        ]
        path = output / "data" / f"train-{start // per_file:05d}-of-{-(-count // per_file):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(table, schema=triplet_schema()), path)
    return output


@pytest.mark.slow
def test_21000_rows_without_delay(tmp_path: Path) -> None:
    """CPU seconds of this process, so that what else runs on the machine does not count."""
    many_rows(tmp_path / "dataset", 21_000)
    started = time.process_time()
    rows = DatasetRows.read(tmp_path / "dataset")
    assert time.process_time() - started < 5
    assert rows.table.num_columns == len(LIGHT) + 1
    started = time.process_time()
    for repeat in range(10):
        assert len(rows.find(Filter(words=f"row 2099{repeat}"))) == 1
        assert len(rows.find(Filter(flag="odd", split="train"))) == 3_000
        assert rows.row(20_000 + repeat)["id"] == f"{20_000 + repeat:016x}"
    assert (time.process_time() - started) / 10 < 0.3
