"""The recorded cases of an independent implementation, and the comparison itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from talking_points.grounding.golden import check, difference
from tests.shared_data import shared_path


def test_every_recorded_case_agrees() -> None:
    results = check(shared_path("golden", "simpleseg", "cases.json"))
    assert len(results) > 50
    assert {kind for _, kind, _ in results} >= {"parse", "raster", "encode", "gspo", "reward", "res_metrics"}
    assert [result for result in results if not result[2] <= 1e-6] == []


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ({"a": 1}, {"a": 1.5, "b": 2}, 0.5),
        ([1, [2, 3]], (1, (2, 3)), 0),
        ({"a": 1}, {}, math.inf),
        ([1, 2], [1], math.inf),
        (True, 1, math.inf),
        (None, 0.0, math.inf),
        ("a", "a", 0),
        ("a", "b", math.inf),
        ([], {}, math.inf),
    ],
)
def test_differences(expected: object, found: object, error: float) -> None:
    assert difference(expected, found) == error


def test_wrong_unknown_and_broken_cases_are_no_agreement(tmp_path: Path) -> None:
    file = tmp_path / "cases.json"
    cases = [
        {"id": 1, "kind": "parse_point", "input": {"text": "[0.5, 0.5]"}, "expected": {"value": [0.5, 0.25]}},
        {"id": "x", "kind": "song", "input": {}, "expected": {}},
        {"id": "y", "kind": "raster", "input": {"polygons": [[[[0, 0]]]], "width": 3, "height": 3}, "expected": {}},
    ]
    file.write_text(json.dumps({"cases": cases}))
    assert check(file) == [("1", "parse_point", 0.25), ("x", "song", math.inf), ("y", "raster", math.inf)]
    file.write_text("[]")
    with pytest.raises(ValueError, match='expected a list "cases"'):
        check(file)
