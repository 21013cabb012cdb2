"""The training flows on a small built dataset, through a real orchestrator."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from commands.console import app
from talking_points.config import ConfigError, load_config
from talking_points.evaluation.champions import RetrainConfig, restore_previous
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.reports import Report
from talking_points.evaluation.retraining import Retraining
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.examples.points import load_points
from talking_points.sources.drawn import draw_sample
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.config import TrainConfig
from talking_points.training.segmenter_config import SegmenterConfig
from tests.blocks import TRAINED, printed_by
from tests.flows.building import build
from tests.prefect_records import prefect_api, prefect_records
from tests.publishing.conftest import Run
from tests.publishing.hub_card import card_problems
from tests.publishing.local_hub import READER, WRITER, LocalHub
from tests.sources.trees import animal, coco, image_entry, write_image, write_json
from tests.test_readme import console_lines
from tests.training.conftest import write_dataset

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RETRAIN = str(CONFIGS / "train" / "retrain.yaml")
SHORT = ("max_steps=2", "batch_size=4", "save_steps=2", "eval_steps=2", "eval_points=4")


@pytest.mark.parametrize("path", sorted((CONFIGS / "train").glob("*.yaml")), ids=lambda path: path.name)
def test_every_training_configuration_is_valid(path: Path) -> None:
    kind: type[TrainConfig | RetrainConfig] = TrainConfig
    if path.stem.startswith(("answerer", "poses")):
        kind = AnswererConfig
    elif path.stem.startswith(("segment", "outlines")):
        kind = SegmenterConfig
    elif "train" in yaml.safe_load(path.read_text()):
        kind = RetrainConfig
    assert load_config(kind, path)


@pytest.mark.parametrize("path", sorted((CONFIGS / "evaluate").glob("*.yaml")), ids=lambda path: path.name)
def test_every_evaluation_configuration_is_valid(path: Path) -> None:
    if path.stem == "poses":
        trained = load_config(AnswererConfig, CONFIGS / "train" / "answerer.yaml")
        assert load_config(EvaluatePosesConfig, path).model == str(trained.output / trained.answerer.stage)
        return
    if path.stem.startswith(("refcoco", "segment")):
        assert load_config(EvaluateSegmentationConfig, path)
        return
    config = load_config(EvaluateConfig, path)
    assert config.pck.thresholds
    name = "paper_text_only" if path.name.startswith("paper") else "text_only"
    control = load_config(TrainConfig, CONFIGS / "train" / f"{name}.yaml")
    assert config.text_only == str(control.output / control.localizer.stage), "where the shipped training leaves it"


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
    given += [f"keypoints.root={drawn['ap10k']}", "image_size=64", "limit=16", "threads=1", "keypoints.limit=6"]
    given += ["vision.steps=1", "vision.batch_size=2", "vision.images=3"]
    given += [f"vision.sources.{name}={drawn[name]}" for name in ("pascal_part116", "ade20k_part234", "partimagenet")]
    given += [f"{stage}.{setting}" for stage in ("localizer", "descriptor", "adapt") for setting in SHORT]
    return [*given, "adapt.max_new_tokens=8"]


def write_people(dataset: Path, file: Path) -> None:
    """Descriptions of the test points, as people would have written them."""
    examples = load_points(dataset, "test").examples
    file.write_text("".join(json.dumps({"id": one.id, "description": "the middle"}) + "\n" for one in examples))


def draw_birds(root: Path) -> None:
    """Two kinds of birds with a beak and a tail, as a labelling tool writes them."""
    birds = [
        {"id": number, "name": name, "keypoints": ["beak", "tail"]} for number, name in ((1, "robin"), (2, "wren"))
    ]
    seen = {"keypoints": [9, 12, 2, 30, 25, 2], "num_keypoints": 2}
    labels = [animal(number, number, 1 + number % 2, **seen) for number in range(8)]
    write_json(root / "birds.json", coco([image_entry(number, f"{number}.jpg") for number in range(8)], labels, birds))
    for number in range(8):
        write_image(root / "images" / f"{number}.jpg")


@pytest.mark.slow
def test_the_commands_of_the_readme_lead_from_a_dataset_to_the_papers_tables(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    given = {name: value for name, _, value in (setting.partition("=") for setting in settings)}
    # Shuffled images take two of a family, and the sample of all tests has one image with Canidae.
    given["keypoints.root"] = str(draw_sample(tmp_path / "animals", 24, 5, sources=("ap10k",))["ap10k"])
    training = [f"{name}={value}" for name, value in given.items() if name != "output"]
    results: dict[str, dict[str, Any]] = {}
    tables: list[str] = []
    # The 7B way is walked on tiny models by the rehearsal.
    lines = [line for line in console_lines("README.md") if "paper" not in line]
    # Then a table with people in it, and a descriptor for one's own animals.
    _, people, own = printed_by(TRAINED)
    lines += [*people.commands, *own.commands]
    write_people(Path(given["dataset"]), tmp_path / "human.jsonl")
    draw_birds(tmp_path / "birds")
    for command, *arguments in (shlex.split(line)[1:] for line in lines):
        if "--config" not in arguments:
            arguments[:0] = ["--config", "configs/evaluate/triplets.yaml"] if command == "evaluate" else []
        if command in {"train-localizer", "train-descriptor", "adapt-descriptor"}:
            own_source = any(argument.startswith("keypoints.root=") for argument in arguments)
            overrides = [item for item in training if not (own_source and item.startswith("keypoints.root="))]
            name = command.replace("-", "_")
        elif command == "evaluate":
            name, overrides = command, ["limit=20", f"features.folder={given['features.folder']}"]
            of_family = "keypoints" in yaml.safe_load(Path(arguments[1]).read_text())
            place = "keypoints.root" if of_family else "dataset"
            overrides.append(f"{place}={given[place]}")
        elif command == "tables":
            done = CliRunner().invoke(app, [command, *arguments])
            assert done.exit_code == 0, done.output
            tables.append(Path("build/tables/tables.md").read_text())
            continue
        else:
            continue
        assert arguments[0::2] == ["--config", *["--set"] * (len(arguments) // 2 - 1)]
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
        result = flow(arguments[1], [*overrides, *arguments[3::2]])
        assert not result.get("reused"), arguments
        results[result["path"]] = result

    train_localizer = importlib.import_module("flows.train_localizer").train_localizer
    assert train_localizer("configs/train/tiny.yaml", training)["reused"]
    with pytest.raises(ConfigError, match=r"localizer.learning_rate: 0.001 -> 0.1"):
        train_localizer("configs/train/tiny.yaml", [*training, "localizer.learning_rate=0.1"])

    assert len(json.loads(Path("build/evaluation-100/human.json").read_text())["predictions"]) > 2
    assert Path("build/train/adapted-robin/model.safetensors").is_file()
    adapted = [f"build/train/adapted-{family}" for family in ("bovidae", "canidae")]
    assert set(adapted) < set(results)
    families = [json.loads(Path(path, "started.json").read_text())["ap10k"]["train_family"] for path in adapted]
    assert families == ["Bovidae", "Canidae"]
    result = results["build/evaluation"]
    assert set(result["controls"]["ground_truth"]) == {"centre", "uniform", "shuffled_images", "text_only"}
    assert result["above_text_only"].keys() == result["mpck"].keys()
    assert result["undescribed"] == dict.fromkeys(result["mpck"], 0)
    assert len(json.loads(Path("build/evaluation/comparisons.json").read_text())) == 1
    # Rows that wait for a report of ours: OMG-LLaVA and DAM in table 1, people and ChatGPT-5 in Figure 1.
    counts = [[table.count("| - |") for table in text.split("### ")[1:]] for text in tables]
    # The second, with people in Figure 1, is made of fewer reports.
    assert counts == [[2, 0, 0, 0, 2, 0], [2, 2, 1, 1, 1, 0]]
    text = tables[0]
    assert "Ours were" not in text

    evaluate = importlib.import_module("flows.evaluate").evaluate
    evaluated = [f"dataset={given['dataset']}", "limit=8", f"features.folder={given['features.folder']}"]
    evaluate("configs/evaluate/mp100.yaml", evaluated)
    report = Report.load("build/evaluation-mp100/descriptor.json")
    assert report.definition["name"] == "mp100"
    assert report.above_text_only is not None
    assert report.above_text_only["difference"] == pytest.approx(report.mpck - report.controls["text_only"])
    with pytest.raises(ConfigError, match=r"text_only: expected.*absent/text-only.*configs/train/text_only.yaml"):
        evaluate("configs/evaluate/triplets.yaml", [*evaluated, "text_only=absent/text-only"])


@dataclass(frozen=True)
class Retrained:
    """Two runs of ``retrain-and-evaluate`` in one folder, the second with the better localizer: what they returned, and
    the settings of the first.
    """

    folder: Path
    settings: list[str]
    first: dict[str, Any]
    second: dict[str, Any]


@pytest.fixture(scope="module")
def retrained(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    from flows.retrain_and_evaluate import retrain_and_evaluate

    folder = tmp_path_factory.mktemp("champions")
    # All points are at one place, which the second localizer learns in a few steps.
    data = write_dataset(tmp_path_factory.mktemp("one-place") / "dataset", places=[(5.0, 5.0)] * 8) / "data"
    shutil.copy(data / "train-00000-of-00001.parquet", data / "test-00000-of-00001.parquet")
    given = [f"folder={folder}", "limit=6", *(f"train.{setting}" for setting in settings)]
    given += [f"train.dataset={data.parent}", "train.localizer.learning_rate=1e-6"]
    first = retrain_and_evaluate(RETRAIN, given)
    better = ["train.localizer.learning_rate=0.03", "train.localizer.max_steps=20", "train.localizer.save_steps=20"]
    return Retrained(folder, given, first, retrain_and_evaluate(RETRAIN, [*given, *better]))


@pytest.mark.slow
def test_a_finished_run_is_not_repeated_and_its_paths_are_printed(
    retrained: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api())
    given = [part for setting in retrained.settings for part in ("--set", setting)]
    done = CliRunner().invoke(app, ["retrain-and-evaluate", "--config", RETRAIN, *given])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == {**retrained.first, "changed": False}
    assert Path(printed["path"]) == retrained.folder / "runs" / printed["run"]
    assert Report.load(printed["report"]).mpck == printed["mpck"]
    assert printed["run"] in Path(printed["history"]).read_text()


@pytest.mark.slow
def test_a_better_challenger_becomes_the_champion(retrained: Retrained) -> None:
    folder, first, second = retrained.folder, retrained.first, retrained.second
    assert first["changed"]
    assert first["promoted"]
    assert first["published"] == {}
    assert second["against"] == first["run"]
    assert second["difference"]["interval"]["low"] > 0
    assert second["promoted"]
    retraining = Retraining(load_config(RetrainConfig, RETRAIN, retrained.settings))
    assert retraining.champion is not None
    assert retraining.champion["run"] == second["run"]
    assert (folder / "history.png").stat().st_size > 3000
    assert (folder / "history.md").read_text().count("\n") == 4
    for entry in (first, second):
        above = entry["above_text_only"]
        assert f"| {above['difference']:+.2f} |" in (folder / "history.md").read_text()
        for role in ("descriptor", "localizer"):
            card = (folder / "runs" / entry["run"] / role / "README.md").read_text()
            assert card_problems(card) == []
            low, high = (f"{entry['interval'][end]:.1f}" for end in ("low", "high"))
            assert f"| descriptor | {entry['points']} | {entry['mpck']:.1f} | {low} to {high} |" in card
            assert f"never sees the image: {above['difference']:.1f} points (" in card
            assert str(folder) not in card
    champion = Report.load(folder / "runs" / second["run"] / "champion" / "descriptor.json")
    assert champion.above_text_only is not None


@pytest.mark.slow
def test_a_restored_champion_is_the_one_to_beat(retrained: Retrained, tmp_path: Path) -> None:
    from flows.retrain_and_evaluate import retrain_and_evaluate

    folder = shutil.copytree(retrained.folder, tmp_path / "champions")
    assert restore_previous(folder)["run"] == retrained.first["run"]
    given = [*retrained.settings, f"folder={folder}", "train.seed=3"]
    third = retrain_and_evaluate(RETRAIN, given)
    assert third["against"] == retrained.first["run"]
    assert third["difference"]["difference"] == 0, "neither has learnt anything"
    assert not third["promoted"]
    assert json.loads((folder / "champion.json").read_text())["run"] == retrained.first["run"]
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
    champion = retrained.second["run"]
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
