"""``answer`` on a tiny answerer with random weights, as people call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import commands.cli  # noqa: F401  (adds the commands to the application)
from commands.console import app
from talking_points.examples.keypoints import PoseExample, PoseSet
from talking_points.examples.pose_files import TrainedPoses
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.presets import tiny_config, train_tokenizer
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An image, and the option that names a model."""
    root = tmp_path_factory.mktemp("answer")
    torch.manual_seed(0)
    model = PointAnswerer(tiny_config(train_tokenizer(["left front paw"], 400)))
    model.tokenizer = train_tokenizer(["left front paw"], 400)
    model.save_pretrained(root / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)).save(root / "image.png")
    return [str(root / "image.png"), "--model", str(root / "model")]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["answer", *arguments])
    return result.exit_code, result.stderr if result.exit_code else result.stdout


@pytest.mark.parametrize(
    "more", [[], ["--box", "10", "5", "60", "50"], ["--description", "on the leg"], ["--mode", "beam"]]
)
def test_a_named_keypoint_is_a_point_of_the_image(given: list[str], more: list[str]) -> None:
    code, output = run(*given, "left front paw", *more)
    assert code == 0, output
    x, y = map(float, output.split())
    assert -0.5 <= x < 89.5
    assert -0.5 <= y < 59.5


def test_all_keypoints_of_a_set_are_drawn_with_their_names(given: list[str], tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    code, output = run(*given, "--all", "bird_body", "--json", "--figure", str(figure), "--box", "-9", "5", "500", "20")
    assert code == 0, output
    found = json.loads(output)
    assert found["box"] == [0, 5, 90, 20], "the part of the box that the image has"
    assert [point["name"] for point in found["points"]] == list(keypoint_sets()["bird_body"].names)
    assert all(point["name"].split()[-1] in point["description"] for point in found["points"])
    drawn = Image.open(figure)
    assert drawn.width == 640
    assert drawn.height > 640 * 60 / 90


def test_all_keypoints_of_a_category_of_own_files(given: list[str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(given[2], model)
    named = KeypointSet("own/crane", ("hook", "cab"), "none", ())
    crane = PoseExample("1", "a.jpg", 7, "crane", named, (9, 9), (0, 0, 9, 9), np.ones((2, 2)), np.ones(2, bool))
    TrainedPoses.of(PoseSet([crane], decode=lambda keys: iter(()))).write(model)
    asked = [given[0], "--model", str(model), "--figure", str(tmp_path / "figure.png")]
    code, output = run(*asked, "--all", "crane")
    assert code == 0, output
    assert [line.split()[2] for line in output.splitlines()] == ["hook", "cab"]
    code, output = run(*asked, "--all", "dragon")
    assert code == 2
    assert "was trained on: crane" in " ".join(output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "expected the name of a keypoint"),
        ([], "neither"),
        (["nose", "--all", "bird_body"], "both"),
        (["--all", "dragon_body"], "quadruped_body"),
        (["nose", "--box", "200", "5", "10", "10"], "90 x 60"),
        (["nose", "--box", "0", "0", "0", "10"], "area"),
        (["--all", "bird_body", "--description", "x"], "leave it out"),
        (["nose", "--mode", "free"], "greedy, beam or mean"),
        (["nose", "--description", "word " * 1900], "at most 2048 tokens"),
        (["nose", "--figure", "figure.txt"], "file name"),
        (["nose " * 1500], "shorten its name or description"),
        (["nose", "--description", "on it " * 1500], "shorten its name or description"),
    ],
)
def test_wrong_input_is_named(given: list[str], arguments: list[str], message: str) -> None:
    code, output = run(*given, *arguments)
    assert code == 2
    assert message in " ".join(output.split())


@pytest.mark.parametrize(
    ("asked", "message"), [(["nose", "--box", "nan", "0", "9", "9"], "found [nan"), ([" "], "name of")]
)
def test_what_cannot_be_asked_is_said_before_a_model_is_looked_at(
    given: list[str], asked: list[str], message: str
) -> None:
    code, output = run(given[0], "--model", "no/model", *asked)
    assert code == 2
    assert message in " ".join(output.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decimals": 9}, "decimals must be 1 to 4, found 9"),
        ({"decimals": "2"}, "Field 'decimals' expected int, got str"),
        ({"question": "{0}"}, "the question must hold {keypoint}"),
        ({"image_mean": [0.5]}, "image_mean must be three numbers, found [0.5]"),
        ({"image_std": [0.0, 1.0, 1.0]}, "image_std must be three numbers above 0"),
        ({"lora_rank": 1_000_000}, "lora_rank must be 1 to 192"),
        ({"vision_lora_rank": 0}, "vision_lora_rank must be 1 to 128"),
        ({"text_config": {"bos_token_id": 1_000_000}}, "bos_token_id must be a token of the vocabulary (0 to"),
        ({"text_config": {"pad_token_id": -5}}, "pad_token_id must be a token of the vocabulary (0 to"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_changed_configuration_is_said(
    given: list[str], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    shutil.copytree(given[2], tmp_path / "changed")
    file = tmp_path / "changed" / "config.json"
    config = json.loads(file.read_text())
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(config))
    code, output = run(given[0], "--model", str(file.parent), "nose")
    assert code == 2
    assert message in " ".join(output.split())
