"""A stage's folder: one writer, one configuration, one kind, and only whole files are taken as finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from talking_points.config import ConfigError
from talking_points.errors import InputError, TrainingStoppedError
from talking_points.locks import FolderInUseError, only_writer
from talking_points.sources.drawn import MARKER
from talking_points.step_progress import PROGRESS, follow
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.checkpoints import COMPLETE, STATE, check_checkpoint, last_checkpoint, own_checkpoint
from talking_points.training.config import TrainConfig, TransferConfig
from talking_points.training.made_once import FINISHED, STARTED, make_once
from talking_points.training.pretraining_state import PretrainingState
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.stages import STAGES, refuse_drawn, run_stage
from talking_points.training.trainer import StageTrainer
from talking_points.whole_files import write_json

SETTINGS = {"seed": 1}
WEIGHTS = "model.safetensors"


def train(folder: Path) -> dict[str, float]:
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return {"loss": 1.0}


def untouched(folder: Path) -> dict[str, float]:
    raise AssertionError("a finished stage was made again")


def test_seconds_are_those_of_all_processes_that_worked_on_a_stage(tmp_path: Path) -> None:
    def stopped(folder: Path) -> dict[str, float]:
        with follow("localizer", 2) as progress:
            progress.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "stage", "localizer", SETTINGS, stopped)
    left = json.loads((tmp_path / "stage" / PROGRESS).read_text())
    assert left["spent"].keys() == {"seconds", "cpu_seconds"}
    for spent in ({"seconds": 70.0, "cpu_seconds": 50.0}, {"seconds": 130.0, "cpu_seconds": 90.0}):
        (tmp_path / "stage" / PROGRESS).write_text(json.dumps({**left, "spent": spent}))
        with pytest.raises(KeyboardInterrupt):
            make_once(tmp_path / "stage", "localizer", SETTINGS, stopped)
        assert json.loads((tmp_path / "stage" / PROGRESS).read_text())["spent"]["cpu_seconds"] >= spent["cpu_seconds"]
    result = make_once(tmp_path / "stage", "localizer", SETTINGS, train)
    assert 90 <= result["cpu_seconds"] < 95
    assert 130 <= result["seconds"] < 190
    assert not (tmp_path / "stage" / PROGRESS).exists()
    assert make_once(tmp_path / "stage", "localizer", SETTINGS, untouched)["cpu_seconds"] == result["cpu_seconds"]


@pytest.mark.parametrize("damaged", ["{", "[]", '{"spent": 3}', '{"spent": {"seconds": "x", "cpu_seconds": 1}}'])
def test_a_damaged_progress_counts_nothing(tmp_path: Path, damaged: str) -> None:
    (tmp_path / PROGRESS).write_text(damaged)
    assert make_once(tmp_path, "localizer", SETTINGS, train)["cpu_seconds"] < 5


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "localizer"
    result = make_once(folder, "localizer", SETTINGS, train)
    assert (result["reused"], result["kind"]) == (False, "localizer")
    return folder


def test_a_finished_stage_is_taken_as_it_is(finished: Path) -> None:
    again = make_once(finished, "localizer", SETTINGS, untouched)
    assert again["reused"]
    assert again["metrics"] == {"loss": 1.0}
    assert "files" not in again
    assert set(json.loads((finished / FINISHED).read_text())["files"]) == {WEIGHTS, "config.json"}


def test_a_folder_of_before_there_were_digests_is_taken(finished: Path) -> None:
    stage = json.loads((finished / FINISHED).read_text())
    del stage["files"], stage["kind"]
    (finished / FINISHED).write_text(json.dumps(stage))
    assert make_once(finished, "localizer", SETTINGS, untouched)["reused"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b"weight"), rf"missing or changed \({WEIGHTS}\).*stage.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), rf"missing or changed \({WEIGHTS}\)"),
        (lambda folder: (folder / "config.json").unlink(), r"missing or changed \(config.json\)"),
        (lambda folder: (folder / FINISHED).write_text('{"stage": "lo'), r"stage.json is damaged.*remove the file"),
        (lambda folder: (folder / STARTED).write_text('{"se'), r"started.json is damaged.*choose another output"),
        (lambda folder: (folder / STARTED).write_text('{"seed": 2}'), r"another configuration \(seed"),
    ],
)
def test_what_is_not_whole_is_refused_with_the_file_and_the_way_on(finished: Path, damage, message: str) -> None:
    damage(finished)
    with pytest.raises(ValueError, match=message):
        make_once(finished, "localizer", SETTINGS, untouched)


def test_a_card_goes_to_the_folder_and_not_where_a_stage_says(finished: Path, tmp_path: Path) -> None:
    stage = json.loads((finished / FINISHED).read_text())
    (tmp_path / "elsewhere").mkdir()
    said = {"path": str(tmp_path / "elsewhere"), "stage": "other", "fingerprint": 3}
    (finished / FINISHED).write_text(json.dumps({**stage, **said}))
    result = make_once(finished, "localizer", SETTINGS, untouched)
    assert (result["path"], result["stage"]) == (str(finished), "localizer")
    assert result["fingerprint"] == stage["fingerprint"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", "3"),
        ("seconds", float("inf")),
        ("cpu_seconds", 10**400),
        ("metrics", [1]),
        ("metrics", {"loss": "1"}),
        ("files", {"../model.safetensors": "0"}),
        ("files", ["model.safetensors"]),
    ],
)
def test_a_stage_of_another_form_is_refused_with_the_field(finished: Path, field: str, value: object) -> None:
    stage = json.loads((finished / FINISHED).read_text())
    (finished / FINISHED).write_text(json.dumps({**stage, field: value}))
    with pytest.raises(InputError, match=rf"stage.json is damaged.*{field}.*: .*run again"):
        make_once(finished, "localizer", SETTINGS, untouched)


def test_the_state_of_a_checkpoint_is_judged_before_a_library_reads_it(tmp_path: Path) -> None:
    for step in (2, 4):
        checkpoint = tmp_path / f"checkpoint-{step}"
        write_json(checkpoint / COMPLETE, {})
        state = {"global_step": step, "max_steps": 9, "epoch": 0.5, "best_metric": None, "log_history": [{"step": 1}]}
        write_json(checkpoint / STATE, {**state, "best_model_checkpoint": None})
    write_json(tmp_path / "checkpoint-last" / COMPLETE, {})
    newest = last_checkpoint(tmp_path)
    assert newest == checkpoint
    check_checkpoint(newest)
    changes = [("global_step", 3), ("log_history", [3]), ("best_model_checkpoint", 3), ("log_history", [{}])]
    for name, value in changes:
        write_json(newest / STATE, {**state, "best_model_checkpoint": None, name: value})
        with pytest.raises(InputError, match=rf"{STATE} is .*remove .*checkpoint-4 and run again"):
            check_checkpoint(newest)
    assert own_checkpoint(tmp_path, "/somewhere/else/checkpoint-2") == tmp_path / "checkpoint-2"
    for elsewhere in ("/etc", "..", "", "checkpoint-3", "org/name"):
        with pytest.raises(InputError, match="the best checkpoint"):
            own_checkpoint(tmp_path, elsewhere)


class Planted:
    """Unpickled, it leaves a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("content", ["pickle", "torn"])
def test_what_a_checkpoint_holds_of_random_numbers_is_no_program(tmp_path: Path, content: str) -> None:
    """As a Trainer of transformers once ran it (CVE-2026-1839)."""
    path = tmp_path / "rng_state.pth"
    if content == "pickle":
        torch.save({"python": Planted(tmp_path / "executed")}, path)
    else:
        path.write_bytes(b"PK")
    trainer = StageTrainer.__new__(StageTrainer)
    trainer.args = SimpleNamespace(world_size=1, process_index=0)
    with pytest.raises(TrainingStoppedError, match=rf"cannot go on from {tmp_path} .*remove it and run again"):
        trainer._load_rng_state(str(tmp_path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{"task": 1}, [], {"task": {}, "optimizer": "x"}, "torn", "pickle"])
def test_a_pretraining_goes_on_from_nothing_else(tmp_path: Path, content: object) -> None:
    path = tmp_path / "checkpoint.pt"
    if content == "torn":
        path.write_bytes(b"PK")
    else:
        torch.save({"task": Planted(tmp_path / "executed")} if content == "pickle" else content, path)
    task = torch.nn.Identity()
    state = PretrainingState(path, task, Mock(), np.random.default_rng(0))
    state.cycle.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(TrainingStoppedError, match=r"cannot go on from .*checkpoint.pt .*remove the file"):
        state.read()
    assert not (tmp_path / "executed").exists()


def test_another_kind_in_the_folder_is_refused(finished: Path) -> None:
    with pytest.raises(ConfigError, match="holds a stage 'localizer', expected 'descriptor'"):
        make_once(finished, "descriptor", SETTINGS, untouched)


@pytest.mark.parametrize("name", ["", "checkpoint-2", "checkpoint-2/model.safetensors"])
def test_links_where_a_training_writes_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "localizer" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link"):
        make_once(tmp_path / "localizer", "localizer", SETTINGS, untouched)
    assert not list((tmp_path / "elsewhere").iterdir())


HOLD = """
import sys
from talking_points.locks import only_writer
with only_writer(sys.argv[1], "a training"):
    print("training", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_training(tmp_path: Path) -> Iterator[int]:
    """The process number of a training that is in the middle of its work in ``tmp_path``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        yield process.pid
        process.kill()


@pytest.mark.parametrize("paused", [False, True])
def test_a_second_training_is_refused_at_once_and_names_the_first(
    paused: bool, other_training: int, tmp_path: Path
) -> None:
    if paused:  # past its heartbeat: its retry must not start, because it may wake up at any time
        os.kill(other_training, signal.SIGSTOP)
    with pytest.raises(FolderInUseError, match=rf"a training \(process {other_training} on .*choose another output"):
        make_once(tmp_path, "localizer", SETTINGS, untouched)


def test_a_lock_ends_with_its_work(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_writer(tmp_path, "a training"):
        raise KeyError
    with only_writer(tmp_path, "a training"), pytest.raises(FolderInUseError), only_writer(tmp_path, "another"):
        pass
    assert [path.name for path in tmp_path.iterdir()] in ([], [".lock"])


def dataset(folder: Path, drawn: bool) -> str:
    folder.mkdir()
    sources = {"partimagenet": {"drawn": drawn}, "pascal_part116": {"drawn": False}}
    (folder / "manifest.json").write_text(json.dumps({"sources": sources}))
    return str(folder)


def test_the_papers_preset_refuses_drawn_data_unless_told(tmp_path: Path) -> None:
    made, real = (dataset(tmp_path / name, name == "made") for name in ("made", "real"))
    config = TrainConfig(output=tmp_path / "train", dataset=made, preset="paper", start="build/omg-llava")
    with pytest.raises(ConfigError, match=r"dataset: .*made \(of partimagenet\).*allow_drawn=true"):
        run_stage("localizer", config)
    assert not (tmp_path / "train").exists()
    animals = tmp_path / "animals"
    animals.mkdir()
    (animals / MARKER).write_text("drawn")
    with pytest.raises(ConfigError, match=r"keypoints.root: "):
        refuse_drawn(config.model_copy(update={"dataset": real, "keypoints": TransferConfig(root=animals)}))
    for allowed in ({"dataset": real}, {"allow_drawn": True}, {"preset": "tiny"}, {"dataset": "org/name"}):
        refuse_drawn(config.model_copy(update=allowed))


def test_every_stage_names_sections_that_there_are() -> None:
    for stage in STAGES.values():
        models = (TrainConfig, AnswererConfig, SegmenterConfig)
        assert any(set(stage.sections) <= set(model.model_fields) for model in models), stage.sections
