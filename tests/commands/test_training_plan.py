"""``--dry-run`` of trainings and evaluations: what it prints is what would happen, and nothing is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from talking_points.training.config import RolloutStage, StageConfig
from talking_points.training.plan import steps_of
from tests.sources.trees import animal, coco, image_entry, write_image, write_json
from tests.training.conftest import write_dataset
from tests.training.small_instructions import write_instructions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("plan") / "dataset", rows=24)
    part = folder / "data" / "train-00000-of-00001.parquet"
    (folder / "data" / "test-00000-of-00001.parquet").write_bytes(part.read_bytes())
    return folder


def plan(*arguments: object) -> Result:
    words = [word for given in arguments for word in (("--set", given) if "=" in str(given) else (given,))]
    return CliRunner().invoke(app, [*map(str, words), "--dry-run"], env={"COLUMNS": "80"})


def test_a_training_is_planned(dataset: Path, tmp_path: Path) -> None:
    given = (f"dataset={dataset}", f"output={tmp_path / 'out'}", "vision.steps=0", "localizer.batch_size=5")
    done = plan("train-localizer", *given, "localizer.epochs=3", "localizer.validation=0.25")
    assert done.exit_code == 0, done.output
    assert " ".join(done.stdout.split()).startswith("stage points steps samples time state localizer 18 12 60 1 s")
    assert "memory for the localizer: about" in done.stdout
    assert "to download: nothing" in done.stdout
    assert not (tmp_path / "out").exists()
    assert done.stderr.splitlines() == ["train-localizer: checking configuration and inputs"]


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("train-localizer", "dataset=nowhere", "found no dataset at nowhere"),
        ("train-descriptor", "vision.sources.pascal_part116=nowhere", "expected the folder of a part-annotated"),
        ("adapt-descriptor", "keypoints.root=nowhere", "expected the folder of the source"),
        ("evaluate", "localizer=nowhere", "found no Point Localizer at nowhere"),
        ("retrain-and-evaluate", "train.dataset=nowhere", "found no dataset at nowhere"),
    ],
)
def test_what_is_not_there_is_refused(command: str, given: str, message: str, dataset: Path) -> None:
    mine = () if command in ("retrain-and-evaluate", "evaluate") or "dataset" in given else (f"dataset={dataset}",)
    done = plan(command, *mine, given)
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_a_split_without_the_columns_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(
        (dataset / "data" / "train-00000-of-00001.parquet").read_bytes()
    )
    done = plan("train-localizer", f"dataset={tmp_path}", "vision.steps=0")
    assert done.exit_code == 2
    assert "no file data/test-*.parquet" in done.stderr


def test_an_evaluation_is_planned(dataset: Path, tmp_path: Path) -> None:
    model = tmp_path / "localizer"
    model.mkdir()
    settings = {"architectures": ["PointLocalizer"], "text_config": {"hidden_size": 64}}
    (model / "config.json").write_text(json.dumps(settings))
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    file = tmp_path / "human.jsonl"
    file.write_text('{"id": "x", "description": "y"}\n')
    done = plan(
        "evaluate", f"dataset={dataset}", f"localizer={model}", "text_only=null", f"output={tmp_path / 'out'}",
        f"sets={{ground_truth: {{}}, human: {{file: '{file}'}}}}", "limit=10",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["ground_truth", "the", "dataset", "10", "2", "0", "s"] in rows
    assert any(row[:1] == ["human"] for row in rows)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "points", "steps"),
    [
        ({"epochs": 10, "batch_size": 8}, 17_000, 21_250),
        ({"epochs": 1, "batch_size": 8, "accumulation": 4}, 17_000, 532),
        ({"epochs": 1, "batch_size": 2, "processes": 4}, 17_000, 2_125),
        ({"max_steps": 40}, None, 40),
        ({"epochs": 1}, None, None),
    ],
)
def test_steps_are_those_that_the_trainer_takes(settings: dict[str, int], points: int | None, steps: int) -> None:
    assert steps_of(StageConfig(**settings), points) == steps


def test_processes_share_the_batches_of_rollouts_which_are_held_for_every_update() -> None:
    stage = RolloutStage(batch_size=4, updates=2, objective="gspo", processes=2, epochs=3, save_steps=2)
    assert steps_of(stage, 10) == 3 * 3 * 2


def test_what_learns_places_is_planned_and_counts_its_data(tmp_path: Path) -> None:
    """Keypoint files of one's own take the place of the shipped configuration's root."""
    root = write_instructions(tmp_path / "instructions", 4)
    birds = [{"id": 1, "name": "wren", "keypoints": ["beak", "tail"]}]
    places = ([9 + number, 12, 2, 30, 25, 2] for number in range(3))
    labels = [animal(number, 1, 1, keypoints=found, num_keypoints=2) for number, found in enumerate(places)]
    write_image(tmp_path / "birds" / "images" / "a.jpg")
    write_json(tmp_path / "birds" / "birds.json", coco([image_entry(1, "a.jpg")], labels, birds))
    for name in ("answerer", "segmenter"):
        (tmp_path / name).mkdir()
        kind = {"answerer": "PointAnswerer", "segmenter": "Segmenter"}[name]
        (tmp_path / name / "config.json").write_text(json.dumps({"architectures": [kind]}))
        (tmp_path / name / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    out, learnt = f"output={tmp_path / 'out'}", f"instructions.root={root}"
    asked: list[tuple[str, list[str], str]] = [
        (
            "train-answerer",
            [f"poses.own={tmp_path / 'birds'}", "answerer.max_steps=7"],
            "answerer 7 to be made 3 objects",
        ),
        (
            "train-segmenter",
            [learnt, "segmenter.max_steps=9", "segmenter_vision.backbone_steps=0"],
            "segmenter 9 to be made",
        ),
        ("refine-segmenter", [learnt, f"segmenter_path={tmp_path / 'segmenter'}"], "answers to each"),
        (
            "evaluate-segmentation",
            [f"instructions={root}", f"model={tmp_path / 'segmenter'}", "compare={}"],
            "split test: ",
        ),
        (
            "evaluate-poses",
            [f"keypoints.own={tmp_path / 'birds'}", "split=all", f"model={tmp_path / 'answerer'}"],
            "6 labelled",
        ),
    ]
    for command, given, told in asked:
        done = plan(command, out, *given)
        assert done.exit_code == 0, (command, done.output)
        assert told in " ".join(done.stdout.split()), done.stdout
    write_json(tmp_path / "birds" / "birds_val.json", coco([image_entry(1, "a.jpg")], labels[:1], birds))
    assert "3 objects" in plan("train-answerer", out, *asked[0][1]).stdout, "what is trained on is not the val file"
    refused = plan("evaluate-poses", out, *asked[-1][1], "split=test")
    assert (refused.exit_code, "expected split 'test'" in refused.output) == (2, True)
    assert not (tmp_path / "out").exists()
