"""Lines of answers that providers write, and counts that were kept, of every form."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from talking_points.descriptions.backends.protocol import Completion
from talking_points.descriptions.batches import collecting
from talking_points.descriptions.batches.records import BatchFolder, Queued
from talking_points.sqlite_files import ForeignDatabaseError


def _body(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("value", ["'many'", "-1", "1e99", "x'00'", "9000000000000000000"])
def test_counts_of_other_types_are_refused(tmp_path: Path, value: str) -> None:
    with BatchFolder(tmp_path / "stage") as folder:
        folder.queue([Queued("a", 1, 2, 3)])
    with closing(sqlite3.connect(tmp_path / "stage" / "asked.sqlite")) as connection:
        connection.execute(f"UPDATE asked SET images = {value}")
        connection.commit()
    with pytest.raises(ForeignDatabaseError, match="values of other types"):
        BatchFolder(tmp_path / "stage")


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ({"response": {"status_code": 200, "body": _body("half \ud83d an emoji")}}, "half � an emoji"),
        ({"response": {"body": _body("no status")}}, "no status"),
        ({"response": {"status_code": 200, "body": {"x": float("nan")}}}, "malformed_response"),
        ({"response": {"status_code": 200, "body": "text"}}, "malformed_response"),
        ({"response": {"status_code": 200, "body": None}}, "malformed_response"),
        ({"response": {"status_code": 999, "body": {}}}, "malformed_response"),
        ({"response": {"status_code": 429, "body": None}}, "rate_limited"),
        ({"response": {"status_code": 500, "body": None}, "error": {"code": "x", "message": "m"}}, "batch_error"),
        # As vLLM's runner writes it.
        (
            {"response": {"status_code": 400, "body": None}, "error": {"error": {"message": "maximum context length"}}},
            "too_long",
        ),
        ({"response": None, "error": {"error": {"message": "no", "code": 400}}}, "batch_error"),
        ({"response": []}, "malformed_response"),
        ({"error": "boom"}, "malformed_response"),
        ({"error": {"code": 5, "message": ["x"]}}, "batch_error"),
    ],
)
def test_every_line_is_an_answer_or_a_reason(line: dict[str, Any], outcome: str) -> None:
    found = collecting.read_answer(line)
    assert (found.text if isinstance(found, Completion) else found.reason) == outcome
