"""The training flows on a small built dataset, through a real orchestrator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from talking_points.config import ConfigError, load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.retraining import RetrainConfig, Retraining
from talking_points.training.config import TrainConfig
from tests.flows.building import build

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHORT = ("max_steps=2", "batch_size=4", "save_steps=1", "eval_steps=2", "eval_points=4")


@pytest.mark.parametrize("path", sorted((CONFIGS / "train").glob("*.yaml")), ids=lambda path: path.name)
def test_every_training_configuration_is_valid(path: Path) -> None:
    kind = RetrainConfig if "train" in yaml.safe_load(path.read_text()) else TrainConfig
    assert load_config(kind, path)


@pytest.mark.parametrize("path", sorted((CONFIGS / "evaluate").glob("*.yaml")), ids=lambda path: path.name)
def test_every_evaluation_configuration_is_valid(path: Path) -> None:
    assert load_config(EvaluateConfig, path).pck.thresholds


def test_the_papers_setting_is_the_papers() -> None:
    paper = load_config(TrainConfig, CONFIGS / "train" / "paper.yaml")
    sft, localizer, adapt = paper.descriptor, paper.localizer, paper.adapt
    assert (sft.epochs, sft.batch_size, sft.learning_rate) == (10, 8, 2e-4)
    assert (localizer.epochs, localizer.batch_size, localizer.learning_rate) == (15, 8, 1e-5)
    assert (adapt.epochs, adapt.batch_size, adapt.group, adapt.beta, adapt.learning_rate) == (3, 10, 3, 0.1, 5e-6)
    assert (adapt.reward, adapt.advantage, adapt.last_blocks) == ("neg_mse", "group", 2)


def test_unknown_rewards_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="neg_mse"):
        load_config(TrainConfig, CONFIGS / "train" / "tiny.yaml", ["adapt.reward=best"])


@pytest.fixture(scope="module")
def settings(orchestrator: None, drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for trainings of two steps on a dataset of a few drawn images."""
    folder = tmp_path_factory.mktemp("training")
    build(folder / "dataset", drawn, "keypoints.per=part")
    given = [f"dataset={folder / 'dataset'}", f"output={folder / 'train'}", f"features.folder={folder / 'features'}"]
    given += [f"ap10k.root={drawn['ap10k']}", "image_size=64", "limit=16", "threads=1", "ap10k.limit=6"]
    given += ["vision.steps=1", "vision.batch_size=2", "vision.images=3"]
    given += [f"vision.sources.{name}={drawn[name]}" for name in ("pascal_part116", "ade20k_part234", "partimagenet")]
    given += [f"{stage}.{setting}" for stage in ("localizer", "descriptor", "adapt") for setting in SHORT]
    return [*given, "adapt.max_new_tokens=8"]


@pytest.mark.slow
def test_from_a_dataset_to_adapted_models_and_their_report(settings: list[str], tmp_path: Path) -> None:
    from flows.adapt_descriptor import adapt_descriptor
    from flows.evaluate import evaluate
    from flows.train_descriptor import train_descriptor
    from flows.train_localizer import train_localizer

    config = str(CONFIGS / "train" / "tiny.yaml")
    localizer = train_localizer(config, settings)
    descriptor = train_descriptor(config, settings)
    adapted = adapt_descriptor(config, settings)
    assert not localizer["reused"]
    assert train_localizer(config, settings)["reused"]
    with pytest.raises(ConfigError, match=r"localizer.learning_rate: 0.001 -> 0.1"):
        train_localizer(config, [*settings, "localizer.learning_rate=0.1"])
    given = {name: value for name, _, value in (setting.partition("=") for setting in settings)}
    result = evaluate(
        str(CONFIGS / "evaluate" / "triplets.yaml"),
        [
            f"output={tmp_path}", f"dataset={given['dataset']}", "limit=8",
            f"features.folder={given['features.folder']}", f"localizer={localizer['path']}",
            f"sets.descriptor.descriptor={descriptor['path']}", f"sets.adapted.descriptor={adapted['path']}",
        ],
    )  # fmt: skip
    assert set(result["mpck"]) == {"ground_truth", "descriptor", "adapted"}
    assert set(result["controls"]["ground_truth"]) == {"centre", "uniform", "shuffled_images"}
    assert (tmp_path / "tables.md").read_text().count("78.83") == 2
    assert len(json.loads((tmp_path / "comparisons.json").read_text())) == 3


@pytest.mark.slow
def test_a_challenger_is_promoted_only_when_better(settings: list[str], tmp_path: Path) -> None:
    from flows.retrain_and_evaluate import retrain_and_evaluate

    config = str(CONFIGS / "train" / "retrain.yaml")
    given = [f"folder={tmp_path}", "limit=6", *(f"train.{setting}" for setting in settings)]
    first = retrain_and_evaluate(config, given)
    assert first["changed"]
    assert first["promoted"]
    assert not retrain_and_evaluate(config, given)["changed"]
    second = retrain_and_evaluate(config, [*given, "train.seed=3"])
    better = second["difference"]["interval"]["low"] > 0
    assert second["promoted"] is better
    retraining = Retraining(load_config(RetrainConfig, config, given))
    assert retraining.champion is not None
    assert retraining.champion["run"] == (second if better else first)["run"]
    assert (tmp_path / "history.png").stat().st_size > 3000
    assert (tmp_path / "history.md").read_text().count("\n") == 4
    card = (tmp_path / "runs" / first["run"] / "descriptor" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name")
    if not better:
        with pytest.raises(ValueError, match="earlier champion"):
            retraining.restore_previous()
