"""A localizer learns named keypoints, and an answerer described points: each what the other was made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from talking_points.config import ConfigError, load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.evaluate import evaluate
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.pose_inputs import check_poses
from talking_points.examples.config import KeypointFiles
from talking_points.examples.points import load_points
from talking_points.examples.pose_files import check_keypoints, open_poses
from talking_points.examples.pose_rows import PoseRowsConfig, write_pose_rows
from talking_points.models.capellm.crops import Crop, clip_box
from talking_points.models.localizer import PointLocalizer
from talking_points.sources.drawn import draw_sample
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.answerer_plan import count_examples
from talking_points.training.config import TrainConfig
from talking_points.training.stages import run_stage
from tasks.model_cards import train_with_card
from tests.training.conftest import small, write_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sample(tmp_path_factory.mktemp("drawn"), 12, 5, sources=["mp100"])["mp100"]


@pytest.mark.slow
def test_a_localizer_learns_keypoints_from_the_crops_and_words_that_it_is_asked_with(
    root: Path, tmp_path: Path
) -> None:
    keypoints = KeypointFiles(root=root, limit=5)
    rows = load_config(PoseRowsConfig, "configs/describe/pose_rows.yaml", [f"output={tmp_path / 'rows'}"])
    rows = rows.model_copy(update={"keypoints": keypoints})
    counts = write_pose_rows(rows)
    poses = open_poses(keypoints, "train").examples
    points = load_points(tmp_path / "rows", "train")
    assert len(points) == counts["train"]
    places = {}
    for one in poses:
        crop = Crop.of_box(clip_box(one.box, *one.size), rows.image_size, rows.crop_padding)
        for index in np.flatnonzero(one.visible & crop.contains(one.points)):
            places[one.keypoints.names[index], tuple(crop.forward(one.points[index : index + 1])[0].round(2))] = one
    found = {(one.facts.part, tuple(np.round(one.keypoint, 2))) for one in points.examples}
    edge = rows.image_size - 1
    inside = {key for key in places if max(key[1]) <= edge}
    assert inside <= {(name, tuple(map(np.float64, place))) for name, place in found}
    assert all(one.text is not None and str(one.facts.part) in one.text for one in points.examples), (
        "descriptions name their keypoint"
    )
    assert len({one.image for one in points.examples}) > len(poses), "further crops of the same objects"

    given = [f"output={tmp_path / 'out'}", f"dataset={tmp_path / 'rows'}", f"features.folder={tmp_path / 'features'}"]
    given += ["vision.steps=0", "vision.backbone_steps=0", "localizer.max_steps=1", "localizer.batch_size=4"]
    config = load_config(TrainConfig, "configs/train/localizer_poses.yaml", [*given, "localizer.eval_points=4"])
    run_stage("localizer", config)
    assert PointLocalizer.from_pretrained(tmp_path / "out" / "localizer").config.image_size == rows.image_size


@pytest.mark.slow
def test_an_answerer_learns_described_points_and_is_judged_beside_the_localizer(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", rows=6)
    given = [f"output={tmp_path}", f"poses.rows={dataset}", "answerer.max_steps=1", "answerer.batch_size=3"]
    config = load_config(AnswererConfig, "configs/train/answerer_rows.yaml", given)
    assert count_examples(config) == 6
    train_with_card("answerer", config)
    train_with_card("answerer", config.blind_twin())
    card = (tmp_path / "answerer" / "README.md").read_text()
    assert "described points" in card
    assert str(tmp_path) not in card
    small(PointLocalizer).save_pretrained(tmp_path / "localizer")
    made: dict[str, Any] = {
        "output": tmp_path / "out", "dataset": str(dataset), "split": "train", "localizer": str(tmp_path / "localizer"),
        "features": {"folder": tmp_path / "features", "limit_gb": 1.0},
        "others": {"answerer": {"model": str(tmp_path / "answerer"), "text_only": str(tmp_path / "answerer-blind")}},
    }  # fmt: skip
    reports = evaluate(EvaluateConfig.model_validate(made))
    assert {name: one.points for name, one in reports.items()} == {"ground_truth": 6, "answerer": 6}
    assert reports["answerer"].localizer == str(tmp_path / "answerer")
    assert set(reports["answerer"].controls) == {"centre", "uniform", "shuffled_images", "text_only"}
    assert all(0 <= row["x"] < 50 and 0 <= row["y"] < 40 for row in reports["answerer"].predictions)
    (pair,) = json.loads((tmp_path / "out" / "comparisons.json").read_text()).values()
    difference = reports["ground_truth"].mpck - reports["answerer"].mpck
    assert pair["difference"] == pytest.approx(difference)
    for changed, reason in (
        ({"others": {"ground_truth": {"model": "m"}}}, "in both"),
        ({"others": {"a/b": {"model": "m"}}}, "a name that a file can have"),
    ):
        with pytest.raises(ValidationError, match=reason):
            EvaluateConfig.model_validate(made | changed)
    (tmp_path / "answerer" / "config.json").write_text('{"architectures": ["PointDescriptor"]}')
    with pytest.raises(ConfigError, match=r"others\.answerer\.model: expected an answerer or a localizer"):
        evaluate(EvaluateConfig.model_validate(made))


@pytest.mark.parametrize(
    "setting", ["answerer.flip=true", "answerer.name_only=0.5", "answerer.texts=null", "pose_vision.steps=3"]
)
def test_what_needs_named_keypoints_is_refused_for_described_points(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"poses.rows: .*{setting.partition('=')[0]}"):
        load_config(AnswererConfig, "configs/train/answerer_rows.yaml", [setting])


def test_described_points_are_no_named_keypoints(root: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    rows = KeypointFiles(rows=dataset)
    with pytest.raises(ConfigError, match=r"keypoints\.rows: .*talking-points evaluate"):
        check_poses(EvaluatePosesConfig(output=tmp_path, model="m", keypoints=rows))
    with pytest.raises(ConfigError, match=r"keypoints\.rows: these are rows already"):
        write_pose_rows(PoseRowsConfig(output=tmp_path / "rows", keypoints=rows))
    with pytest.raises(ConfigError, match=r"output: .*holds another dataset"):
        write_pose_rows(PoseRowsConfig(output=dataset, keypoints=KeypointFiles(root=root)))
    with pytest.raises(ConfigError, match=r"keypoints\.rows: expected the folder.*talking-points build"):
        check_keypoints(KeypointFiles(rows=tmp_path / "nowhere"))
    with pytest.raises(ValidationError, match="either own"):
        KeypointFiles(rows=dataset, own=root)
