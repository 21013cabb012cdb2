"""Reports, their comparison, description sets and controls."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from talking_points.config import ConfigError
from talking_points.evaluation.config import DescriptionSet
from talking_points.evaluation.controls import centre, other_images, other_points, uniform
from talking_points.evaluation.description_sets import describe_set, draw_mark, read_descriptions
from talking_points.evaluation.pck import DEFINITIONS, MP100
from talking_points.evaluation.reports import IncomparableError, Report, compare, evaluate_predictions
from talking_points.examples.config import FeatureConfig
from tests.training.conftest import points


def report(predicted=None, *, name: str = "ground_truth", data=None, **fields) -> Report:
    data = data or points(6, 3)
    return evaluate_predictions(name, data, data.keypoints if predicted is None else predicted, **fields)


def test_perfect_predictions_score_a_hundred_everywhere() -> None:
    found = report()
    assert found.mpck == found.pck["0.05"] == found.levels["found"] == 100
    assert found.points == 18
    assert found.images == 6
    assert found.sources["drawn"] == {"points": 18, "mpck": 100.0, "0.05": 100.0, "0.1": 100.0, "0.2": 100.0}
    assert found.definition["thresholds"] == [0.05, 0.1, 0.2]


@pytest.mark.parametrize("name", ["talking_points", "mp100"])
def test_a_reports_figures_are_those_of_a_count_by_hand(name: str) -> None:
    random, examples = np.random.default_rng(0), []
    for number, example in enumerate(points(8, 5).examples):
        box = (0.0, 0.0, *random.uniform(5, 90, 2))
        examples.append(replace(example, object_bbox=box, source="drawn" if number % 3 else "other"))
    data = replace(points(1, 1), examples=examples)
    predicted = data.keypoints + random.normal(0, 10, (40, 2))
    found = report(predicted, data=data, definition=DEFINITIONS[name])
    thresholds = {"talking_points": [0.1, 0.2], "mp100": [0.05, 0.1, 0.15, 0.2, 0.25]}[name]
    by_source: dict[str, list[float]] = {"drawn": [], "other": []}
    for example, (x, y) in zip(examples, predicted.tolist(), strict=True):
        across, down = x - example.keypoint[0], y - example.keypoint[1]
        scales = example.size if name == "talking_points" else (max(example.object_bbox[2:]),) * 2
        by_source[example.source].append(math.hypot(across / scales[0], down / scales[1]))

    def share(distances: list[float], threshold: float) -> float:
        return 100 * sum(distance < threshold for distance in distances) / len(distances)

    every = by_source["drawn"] + by_source["other"]
    assert 0 < share(every, min(thresholds)) < share(every, max(thresholds)) < 100
    assert found.mpck == pytest.approx(sum(share(every, t) for t in thresholds) / len(thresholds))
    assert found.pck["0.05"] == pytest.approx(share(every, 0.05))
    for source, own in by_source.items():
        assert found.sources[source]["points"] == len(own)
        assert found.sources[source]["0.1"] == pytest.approx(share(own, 0.1))
        assert found.sources[source]["mpck"] == pytest.approx(sum(share(own, t) for t in thresholds) / len(thresholds))


def test_levels_name_where_a_prediction_fails() -> None:
    data = points(1, 1)
    far = data.examples[0]
    assert far.keypoint[0] > 30, "the point must lie far from the boxes at the top left"
    places = {"point": [5.0, 5.0], "part": [40.0, 40.0], "object": [95.0, 1.0]}
    for level, place in places.items():
        found = report(np.array([place]), data=data)
        assert found.levels[level] == 100, level
    assert report(np.array([[5.0, 5.0]]), data=data).inside_part == 100
    assert report(np.array([[40.0, 40.0]]), data=data).inside_part == 0


def test_a_result_is_set_against_its_controls() -> None:
    data = points(10, 4)
    found = report(data=data, controls={"centre": centre(data), "text_only": centre(data)})
    assert found.controls["centre"] == report(centre(data), data=data).mpck
    assert found.above_text_only is not None
    assert found.above_text_only["difference"] == pytest.approx(100 - found.controls["text_only"])
    assert found.above_text_only["p_value"] < 0.01
    assert report(data=data).above_text_only is None


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    found = report(np.full((18, 2), np.nan))
    found.save(tmp_path / "a" / "report.json")
    loaded = Report.load(tmp_path / "a" / "report.json")
    assert loaded.mpck == 0
    assert loaded.words["colour"] is None
    assert loaded.predictions[0]["x"] is None
    json.loads((tmp_path / "a" / "report.json").read_text(), parse_constant=pytest.fail)
    for other in ("{}", "[{}]"):
        (tmp_path / "b.json").write_text(other)
        with pytest.raises(ValueError, match="no evaluation report"):
            Report.load(tmp_path / "b.json")


def test_reports_of_other_definitions_or_points_are_not_compared() -> None:
    with pytest.raises(IncomparableError, match="definition"):
        compare(report(), report(definition=MP100))
    data = points(6, 3)
    with pytest.raises(IncomparableError, match="none of the 9 points of 'ground_truth' is among the 6 of 'human'"):
        compare(report(data=data.subset(range(9))), report(name="human", data=data.subset(range(9, 15))))


def test_a_comparison_is_after_minus_before() -> None:
    data = points(20, 2)
    worse = compare(report(data=data), report(np.zeros((40, 2)), data=data))
    assert worse.difference < -30
    assert worse.interval.high < 0
    assert worse.p_value < 0.01


def test_only_the_points_that_both_describe_are_compared() -> None:
    data = points(20, 2)
    noisy = data.keypoints + np.random.default_rng(0).normal(0, 20, (40, 2))
    most, few = list(range(5, 40)), list(range(0, 30, 2))
    found = compare(report(data=data.subset(most)), report(noisy[few], data=data.subset(few)))
    both = [index for index in few if index in most]
    alone = compare(report(data=data.subset(both)), report(noisy[both], data=data.subset(both)))
    assert found == alone
    assert found.points == len(both) == 12
    assert found.difference < 0


def test_reports_of_before_points_were_counted_are_read(tmp_path: Path) -> None:
    report(undescribed=4).save(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    assert values.pop("undescribed") == Report.load(tmp_path / "report.json").undescribed == 4
    (tmp_path / "older.json").write_text(json.dumps(values))
    assert Report.load(tmp_path / "older.json").undescribed == 0


# ---------------------------------------------------------------------- controls


def test_shuffled_images_are_all_other_images() -> None:
    data = points(5, 4)
    shown = other_images(data, seed=1)
    assert sorted(shown) == list(range(20))
    assert all(data.examples[a].image != data.examples[b].image for a, b in enumerate(shown))
    with pytest.raises(ValueError, match="two images"):
        other_images(points(1, 4))


def test_texts_of_other_points_are_about_the_same_image() -> None:
    data = points(3, 4)
    alone = data.subset([0, *range(4, 12)])
    exchanged = other_points(alone)
    images = {example.text: example.image for example in data.examples}
    assert [example.id for example in exchanged.examples] == [example.id for example in alone.examples[1:]]
    for before, after in zip(alone.examples[1:], exchanged.examples, strict=True):
        assert after.text != before.text
        assert images[after.text] == before.image
    assert {e.text for e in exchanged.examples} == {e.text for e in alone.examples[1:]}


def test_uniform_is_the_same_for_the_same_point_and_covers_the_image() -> None:
    data = points(40, 5)
    found = uniform(data)
    np.testing.assert_array_equal(uniform(data.subset([7, 3])), found[[7, 3]])
    assert (found >= 0).all()
    assert (found < data.sizes).all()
    assert np.abs(found.mean(0) / data.sizes[0] - 0.5).max() < 0.1


# ---------------------------------------------------------------------- description sets


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_descriptions_come_from_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"human.{kind}"
    rows = [
        {"id": "p0", "description": "the nose"},
        {"id": "p2", "description": "the tail"},
        {"id": "p3", "description": ""},
    ]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    found = describe_set(points(2, 2), DescriptionSet(file=path), FeatureConfig(folder=tmp_path))
    assert [(example.id, example.text) for example in found.examples] == [("p0", "the nose"), ("p2", "the tail")]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(ConfigError, match="no descriptions"):
        read_descriptions(path)
    path.write_text('{"id": "p0", "text": "a"}')
    with pytest.raises(ConfigError, match="description"):
        read_descriptions(path)
    path.write_text('{"id": "p0", "description": "a"}\n{"id": "p0", "description": "b"}')
    with pytest.raises(ConfigError, match="more than once"):
        read_descriptions(path)
    path.write_text('{"id": "other", "description": "a"}')
    with pytest.raises(ConfigError, match="compare the ids"):
        describe_set(points(1, 1), DescriptionSet(file=path), FeatureConfig(folder=tmp_path))
    with pytest.raises(ValueError, match="one of"):
        DescriptionSet(file=path, descriptor="somewhere")


def test_a_mark_is_seen_and_leaves_the_rest_alone() -> None:
    image = np.full((80, 120, 3), 90, np.uint8)
    found = draw_mark(image, (60.0, 40.0))
    changed = np.argwhere((found != image).any(-1))
    assert len(changed) > 20
    assert np.abs(changed - [40, 60]).max() <= 8
    assert (image == 90).all()
