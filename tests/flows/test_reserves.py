"""Rows that are rejected are replaced from reserves, until every source has its share."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from tests.flows.building import build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("orchestrator")]


def test_rejected_rows_are_replaced_until_the_shares_are_met(drawn: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    strict = ("verification.max_words=66", "verification.max_rejected_share=1")  # about half of the texts are longer
    result = build(output, drawn, "limit=6", "sampling.reserve=4", *strict)
    manifest = json.loads((output / "manifest.json").read_text())
    assert result["rejected"] > 0
    assert result["rows"] == 6
    rows = [row for split in datasets.load_dataset(str(output)).values() for row in split]
    assert Counter(row["source"] for row in rows) == {0: 2, 1: 2, 2: 2}
    assert max(len(row["description"].split()) for row in rows) == manifest["lengths"]["max"] <= 66
    assert manifest["stages"]["verify"]["rows_out"] == len(rows) + manifest["unused_reserves"]
