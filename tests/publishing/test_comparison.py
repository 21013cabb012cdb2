"""Two builds side by side, made of the same small dataset with some texts written anew."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.publishing.comparison import compare_builds, word_differences, write_comparison
from tests.publishing.small_dataset import write_dataset


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    """The second has every third text anew, another seed, another prompt, and lacks the last file."""
    first, second = write_dataset(tmp_path / "a"), write_dataset(tmp_path / "b")
    manifest = json.loads((second / "manifest.json").read_text())
    manifest["files"].pop()
    manifest["config"]["seed"] = 1
    manifest["steps"]["refine"] = manifest["steps"]["refine"] | {"prompt_sha256": "f" * 64}
    (second / "manifest.json").write_text(json.dumps(manifest))
    for file in manifest["files"]:
        table = pq.read_table(second / file["path"])
        texts = [
            text.replace("dark blob", "<bright> stripe") if int(row, 16) % 3 == 0 else text
            for row, text in zip(table["id"].to_pylist(), table["description"].to_pylist(), strict=True)
        ]
        column = table.schema.get_field_index("description")
        pq.write_table(table.set_column(column, "description", pa.array(texts)), second / file["path"])
    return first, second


def test_rows_are_matched_by_id(builds: tuple[Path, Path]) -> None:
    comparison = compare_builds(*builds)
    assert comparison.only == (6, 0)
    assert len(comparison.different) == 4
    assert comparison.same == 8
    for one, other in comparison.different:
        assert one["id"] == other["id"]
        assert ("dark blob" in one["description"], "stripe" in other["description"]) == (True, True)


def test_settings_and_numbers_stand_side_by_side(builds: tuple[Path, Path]) -> None:
    comparison = compare_builds(*builds)
    assert comparison.settings == ("seed: 0 -> 1", "refine, text of the prompt: 000000000000 -> ffffffffffff")
    metrics = {name: values for name, *values in comparison.metrics}
    assert metrics["rows"] == ["18", "18"]
    assert {"accepted, verify", "self-BLEU", "distinct-2", "names look", "words, mean"} <= set(metrics)
    itself = compare_builds(builds[0], builds[0])
    assert itself.settings == ()
    assert itself.different == ()
    assert all(one == other for _, one, other in itself.metrics)


def test_the_page_marks_the_words_that_differ(builds: tuple[Path, Path], tmp_path: Path) -> None:
    comparison = compare_builds(*builds)
    page = write_comparison(comparison, tmp_path / "pages" / "ab.html").read_text()
    assert page.count("<del>dark blob</del>") == page.count("<ins>&lt;bright&gt; stripe</ins>") == 4
    assert page.count("data:image/jpeg") == 4
    assert write_comparison(comparison, tmp_path / "two.html", rows=2).read_text().count("data:image/jpeg") == 2


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12), st.lists(st.sampled_from(["a", "b", "c", "e"])))
def test_pieces_give_both_texts_back(first: list[str], second: list[str]) -> None:
    one, other = word_differences(" ".join(first), " ".join(second))
    assert " ".join(words for _, words in one).split() == first
    assert " ".join(words for _, words in other).split() == second
    assert [words for differs, words in one if not differs] == [words for differs, words in other if not differs]
