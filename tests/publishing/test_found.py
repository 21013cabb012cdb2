"""mPCK in the quality report: of an evaluation, by who wrote the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from talking_points.config import ConfigError
from talking_points.evaluation.pck import TALKING_POINTS
from talking_points.publishing.found import mpck_by_writer
from talking_points.publishing.quality import write_quality_report
from tests.publishing.small_dataset import write_dataset

WRITERS = {"a": [], "b": ["composed"], "c": ["composed", "another"]}
ROWS = [{"id": name, "flags": flags} for name, flags in WRITERS.items()]


def save_report(folder: Path, **distances: float) -> Path:
    """A report whose points lie so far from where they were looked for."""
    names = ("pck", "levels", "words", "controls", "sources", "categories")
    values = {
        "name": "model", "definition": TALKING_POINTS.to_dict(), "dataset": "d", "localizer": "l", "points": 3,
        "images": 3, "mpck": 0.0, "interval": {"low": 0.0, "high": 0.0}, "inside_part": 0.0, "above_text_only": None,
        "predictions": [{"id": name, "distance": distance} for name, distance in distances.items()],
    }  # fmt: skip
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(values | {name: {} for name in names}))
    return folder


def test_rows_that_were_composed_are_told_from_those_that_a_model_wrote(tmp_path: Path) -> None:
    (found,) = mpck_by_writer(ROWS, save_report(tmp_path / "e", a=0.15, b=0.05, c=0.5, of_another_dataset=0.0))
    assert found["by_writer"] == {"written": {"points": 1, "mpck": 50.0}, "composed": {"points": 2, "mpck": 50.0}}
    assert (found["points"], found["mpck"], found["interval"]) == (3, 50.0, None)


@pytest.mark.parametrize("folder", ["of_others", "not_there"])
def test_an_evaluation_of_other_points_is_refused(tmp_path: Path, folder: str) -> None:
    save_report(tmp_path / "of_others", x=0.1)
    with pytest.raises(ConfigError, match=folder):
        mpck_by_writer(ROWS, tmp_path / folder)


def test_the_page_tells_it(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    evaluation = save_report(tmp_path / "e", **{f"{0:016x}": 0.15})
    page = write_quality_report(output, evaluation=evaluation)[0].read_text()
    assert "written 50.0 (1)" in page
    assert "50.0 (0.0 to 0.0)" in page
    assert json.loads((output / "report" / "quality.json").read_text())["found"][0]["localizer"] == "l"
