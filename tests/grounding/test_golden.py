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
        (10**400, 1.0, math.inf),
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


@pytest.mark.parametrize(
    "case",
    [
        5,
        {},
        {"id": "a", "kind": ["raster"], "input": {}, "expected": {}},
        {"id": "a", "kind": "parse", "input": {"text": 5, "max_points": 9}, "expected": {"ok": True}},
        {"id": "a", "kind": "parse", "input": {"text": "[]", "max_points": 9}, "expected": []},
        *(
            {
                "id": "a",
                "kind": "raster",
                "input": {"polygons": [], "width": 8, "height": 8, "mask": {"size": [8, 8], "counts": counts}},
                "expected": {"area": 0},
            }
            for counts in ("", "0", "PPPPPPPPPPPPPPPPPP", 7, "\u00e9")
        ),
        {
            "id": "a",
            "kind": "gspo",
            "input": {"log_probs": [[-1.0]], "old_log_probs": [[-1.0], [-2.0]], "advantages": [1.0],
                      "epsilon_low": 0.1, "epsilon_high": 0.1},
            "expected": {"loss": 0.0},
        },
    ],
)  # fmt: skip
def test_a_case_from_elsewhere_is_wrong_and_ends(case: object, tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [case]}))
    assert [error for _, _, error in check(tmp_path / "cases.json")] == [math.inf]


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (1.0, math.nan),
        ([1.0], [math.nan]),
        ([0.5, 1.0], [0.5, math.nan]),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": math.nan}),
    ],
)
def test_what_is_no_number_agrees_with_nothing(expected: object, found: object) -> None:
    assert difference(expected, found) == math.inf


def test_a_file_of_brackets_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cases"):
        check(tmp_path / "cases.json")
