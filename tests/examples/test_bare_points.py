"""Keypoints of any source as points without texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from talking_points.config import ConfigError, load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.examples.bare_points import load_bare_points
from talking_points.examples.config import KeypointsConfig
from talking_points.sources import open_source
from talking_points.sources.labels import load_labels
from talking_points.training.config import TrainConfig, TransferConfig
from talking_points.training.stages import STAGES, stage_settings
from tests.sources.test_coco_keypoints import KITE, kite, tree

BOVIDAE = {item["name"] for item in load_labels("ap10k")["species"] if item["family"] == "Bovidae"}


def test_keypoints_of_a_family_become_points_without_texts(drawn: dict[str, Path]) -> None:
    wanted = KeypointsConfig(root=drawn["ap10k"], categories=["Bovidae"])
    points = load_bare_points(wanted)
    animals = [item for record in open_source("ap10k", drawn["ap10k"]) for item in record.objects]
    labelled = [point for item in animals if item.name in BOVIDAE for point in item.keypoints if point.visible]
    assert len(points) == len(labelled) > 0
    assert len({example.id for example in points.examples}) == len(points)
    assert {example.facts.object for example in points.examples} <= BOVIDAE
    assert all(example.text == "" and example.part_bbox is None for example in points.examples)
    assert all("image" in example.facts.object_location for example in points.examples)
    digest, image = next(points.images([points.examples[0].image]))
    assert digest == points.examples[0].image
    assert image.size == points.examples[0].size
    assert len(load_bare_points(wanted, limit=3)) == 3
    with pytest.raises(ConfigError, match="unicorn"):
        load_bare_points(wanted.model_copy(update={"categories": ["unicorn"]}))
    species = points.examples[0].facts.object
    own = load_bare_points(wanted.model_copy(update={"categories": [species]}))
    assert {example.id for example in own.examples} == {e.id for e in points.examples if e.facts.object == species}


@pytest.mark.parametrize("categories", [[], ["kite"], ["5"], ["other", "kite"]])
def test_a_users_own_keypoints_become_points(tmp_path: Path, categories: list[str]) -> None:
    other = {"id": 6, "name": "sail", "keypoints": ["tip"]}
    items = [kite(1), {**kite(2), "category_id": 6, "keypoints": [7, 7, 2], "num_keypoints": 1}]
    root = tree(tmp_path, (KITE, other), items)
    points = load_bare_points(KeypointsConfig(source="coco_keypoints", root=root, categories=categories))
    assert sorted(e.keypoint for e in points.examples if e.facts.object == "kite") == [(5, 6), (9, 9)]
    assert len(points) == (2 if categories else 3)
    assert {example.source for example in points.examples} == {"coco_keypoints"}


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({}, "adapted-bovidae"),
        ({"categories": ["Canidae"]}, "adapted-canidae"),
        ({"source": "mp100"}, "adapted-mp100"),
        ({"source": "mp100", "categories": ["human face", "../x"]}, "adapted-human-face-x"),
    ],
)
def test_what_is_adapted_is_named_after_its_categories(given: dict[str, Any], folder: str) -> None:
    config = TrainConfig(output=Path("out"), dataset="org/name", keypoints=TransferConfig.model_validate(given))
    assert STAGES["adapted"].folder(config) == folder


def test_settings_of_families_are_written_as_before_and_others_by_what_can_change_a_weight() -> None:
    config = TrainConfig(output=Path("out"), dataset="org/name", keypoints=TransferConfig(root=Path("ap")))
    former = {"root": "ap", "train_family": "Bovidae", "test_family": "Canidae", "limit": None}
    assert stage_settings(config, "adapted")["ap10k"] == former
    assert not {"ap10k", "keypoints"} & stage_settings(config, "descriptor").keys()
    assert not {"objective", "updates", "clip_low", "clip_high"} & stage_settings(config, "adapted")["adapt"].keys()
    two = TransferConfig(categories=["Bovidae", "Canidae"], test_categories=["Felidae"])
    settings = stage_settings(config.model_copy(update={"keypoints": two}), "adapted")
    assert settings["keypoints"] == {
        "source": "ap10k", "root": None, "categories": ["Bovidae", "Canidae"], "split": None, "limit": None
    }  # fmt: skip
    assert "ap10k" not in settings


@pytest.mark.parametrize(
    ("model", "file"), [(TrainConfig, "configs/train/tiny.yaml"), (EvaluateConfig, "configs/evaluate/ap10k.yaml")]
)
def test_the_former_section_is_refused_with_the_names_of_today(model: type[Any], file: str) -> None:
    with pytest.raises(ConfigError, match=r"ap10k\.root is keypoints\.root"):
        load_config(model, file, ["ap10k.root=somewhere"])
