"""What reads a finished dataset reads one whose rows are all of a user's own source, or of another package's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from talking_points.audit.browsing import DatasetRows, Filter
from talking_points.audit.items import load_questions
from talking_points.examples.points import load_points
from talking_points.publishing.comparison import compare_builds, write_comparison
from talking_points.publishing.quality import read_rows, write_quality_report
from talking_points.publishing.release import prepare_release
from talking_points.records import LABELS, SOURCES
from tests.publishing.small_dataset import ROWS, small_manifest, write_dataset

TITLES = {"coco_parts": "Own annotations", "added": "Source of another package"}


def own_dataset(output: Path, label: str) -> Path:
    """A dataset of one source, by the name that its rows are published under."""
    counts = small_manifest(ROWS, "embed")["sources"][SOURCES[0]]
    count = sum(ROWS.values())
    return write_dataset(
        output,
        label=label,
        sources={label: counts | ROWS | {"points": count}},
        composition={label: {"dog": {"ear": count}}},
    )


@pytest.mark.parametrize("label", LABELS[len(SOURCES) :])
def test_every_reader_takes_rows_of_an_own_source(tmp_path: Path, label: str) -> None:
    root, other = (own_dataset(tmp_path / folder, label) for folder in ("one", "other"))
    page, *_ = write_quality_report(root)
    assert page.read_text().count(f"{TITLES[label]} ·") == sum(ROWS.values())
    compared = compare_builds(root, other)
    pair = compared.different or tuple((row, row | {"description": "Another text."}) for row in read_rows(root))
    page = write_comparison(replace(compared, different=pair), tmp_path / "page.html")
    assert page.read_text().count(f"{TITLES[label]} ·") == sum(ROWS.values())
    rows = DatasetRows.read(root)
    assert rows.choices("source") == {label: sum(ROWS.values())}
    assert len(rows.find(Filter(source=label))) == sum(ROWS.values())
    assert rows.row(0)["source"] == label
    assert {item.source for item in load_questions(root, share=1.0).items} == {label}
    assert {example.source for example in load_points(root, "train").examples} == {label}
    release = prepare_release(root, "org/name", tmp_path / "work", images="reference")
    assert set(release.manifest["images"]) == {label}
