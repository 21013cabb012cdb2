"""The training flows on a small built dataset, through a real orchestrator."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from talking_points.config import ConfigError, load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.retraining import RetrainConfig, Retraining, restore_previous
from talking_points.training.config import TrainConfig
from tests.flows.building import build
from tests.prefect_records import prefect_api, prefect_records
from tests.publishing.conftest import Run
from tests.publishing.local_hub import READER, WRITER, LocalHub, card_problems

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RETRAIN = str(CONFIGS / "train" / "retrain.yaml")
SHORT = ("max_steps=2", "batch_size=4", "save_steps=2", "eval_steps=2", "eval_points=4")


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


@pytest.mark.parametrize("stage", ["localizer", "descriptor", "adapt"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["patience=3"], "set validation to the share of the training images"),
        (["patience=3", "validation=0.1", "save_steps=5", "eval_steps=10"], r"multiple of eval_steps \(10\), found 5"),
        (["validation=1"], "less than 1"),
        (["patience=3", "validation=0.1", "save_steps=20", "eval_steps=10"], None),
    ],
)
def test_weights_are_not_chosen_by_the_test_split(stage: str, settings: list[str], expected: str | None) -> None:
    given = [f"{stage}.{setting}" for setting in settings]
    if expected is None:
        load_config(TrainConfig, CONFIGS / "train" / "tiny.yaml", given)
        return
    with pytest.raises(ConfigError, match=expected):
        load_config(TrainConfig, CONFIGS / "train" / "tiny.yaml", given)


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


@dataclass(frozen=True)
class Retrained:
    """Two runs of ``retrain-and-evaluate`` in one folder: what they returned, and the settings of the first."""

    folder: Path
    settings: list[str]
    first: dict[str, Any]
    second: dict[str, Any]

    @property
    def champion(self) -> dict[str, Any]:
        return self.second if self.second["promoted"] else self.first


@pytest.fixture(scope="module")
def retrained(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    from flows.retrain_and_evaluate import retrain_and_evaluate

    folder = tmp_path_factory.mktemp("champions")
    given = [f"folder={folder}", "limit=6", *(f"train.{setting}" for setting in settings)]
    first = retrain_and_evaluate(RETRAIN, given)
    assert not retrain_and_evaluate(RETRAIN, given)["changed"]
    return Retrained(folder, given, first, retrain_and_evaluate(RETRAIN, [*given, "train.seed=3"]))


@pytest.mark.slow
def test_a_challenger_is_promoted_only_when_better(retrained: Retrained) -> None:
    folder, first, second = retrained.folder, retrained.first, retrained.second
    assert first["changed"]
    assert first["promoted"]
    assert first["published"] == {}
    better = second["difference"]["interval"]["low"] > 0
    assert second["promoted"] is better
    retraining = Retraining(load_config(RetrainConfig, RETRAIN, retrained.settings))
    assert retraining.champion is not None
    assert retraining.champion["run"] == retrained.champion["run"]
    assert (folder / "history.png").stat().st_size > 3000
    assert (folder / "history.md").read_text().count("\n") == 4
    for entry in (first, second):
        for role in ("descriptor", "localizer"):
            card = (folder / "runs" / entry["run"] / role / "README.md").read_text()
            assert card_problems(card) == []
            low, high = (f"{entry['interval'][end]:.1f}" for end in ("low", "high"))
            assert f"| descriptor | {entry['points']} | {entry['mpck']:.1f} | {low} to {high} |" in card
            assert str(folder) not in card
    if not better:
        with pytest.raises(ConfigError, match="earlier champion"):
            restore_previous(folder)


FLOW = """
import json, sys
from flows.retrain_and_evaluate import retrain_and_evaluate
print(json.dumps(retrain_and_evaluate(sys.argv[1], json.loads(sys.argv[2]))))
"""
WEIGHTS = """
import hashlib, sys
from talking_points.models.descriptor import PointDescriptor
model = PointDescriptor.from_pretrained(sys.argv[1], revision=sys.argv[2])
digest = hashlib.sha256()
for name, tensor in sorted(model.state_dict().items()):
    digest.update(name.encode() + tensor.numpy().tobytes())
print(model.text_tokenizer.vocab_size, digest.hexdigest())
"""


@pytest.mark.slow
def test_the_champion_goes_to_the_hub_when_configured(retrained: Retrained, hub: LocalHub, run: Run) -> None:
    """After a publication that the Hub refused the same flow run again trains nothing and publishes."""
    from prefect.blocks.system import Secret

    repositories = {"descriptor": "org/descriptor", "localizer": "org/localizer"}
    publish = [f"publish.{role}={repo}" for role, repo in repositories.items()]
    environment = {"PREFECT_API_URL": prefect_api(), "PREFECT_LOGGING_LEVEL": "DEBUG"}
    for name, token in (("reader", READER), ("writer", WRITER)):
        Secret(value=token).save(name, overwrite=True)
    refused, done = (
        run(FLOW, RETRAIN, json.dumps([*retrained.settings, *publish, f"publish.token_block={name}"]), token=None,
            **environment)
        for name in ("reader", "writer")
    )  # fmt: skip
    assert refused.returncode == 1
    assert "HTTP 403" in refused.stderr
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout.splitlines()[-1])
    champion = retrained.champion["run"]
    assert not entry["changed"]
    assert entry["published"] == {role: f"{hub.url}/{repo}/tree/{champion}" for role, repo in repositories.items()}
    for repo in repositories.values():
        assert list(hub.repository(repo, "model").tags) == [champion]

    here = run(WEIGHTS, retrained.folder / "runs" / champion / "descriptor", "main")
    there = run(WEIGHTS, "org/descriptor", champion)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout

    records = prefect_records()
    assert "publish-models" in records["task_runs"]
    assert "HTTP 403" in records["logs"]
    for token in (READER, WRITER):
        assert not [kind for kind, text in records.items() if token in text]
        assert token not in refused.stdout + refused.stderr + done.stdout + done.stderr
