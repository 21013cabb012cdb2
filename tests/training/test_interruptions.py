"""A training that is killed or meets a full disk leaves a good checkpoint, and goes on to the same bytes."""

from __future__ import annotations

import multiprocessing
import random
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from talking_points.training.checkpoints import complete_checkpoints, last_checkpoint
from tests.training.small_runs import RUNS, killed_run, run, run_on_a_full_disk

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.training.small_runs"])

Whole = dict[str, list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Whole:
    """The events of each training, run without an interruption into a folder of its name."""
    events: Whole = {name: [] for name in RUNS}
    for name, own in events.items():
        run(name, folder, name, own.append)
    return events


def results(output: Path) -> dict[str, bytes]:
    return {
        name: (output / name).read_bytes()
        for name in ("model.safetensors", "samples.jsonl")
        if (output / name).exists()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at"),
    [*((name, "anywhere") for name in RUNS), ("localizer", "the last save"), ("impatient", "the last save")],
)
def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(
    name: str, at: str, whole: Whole, folder: Path
) -> None:
    # A training seeds the generator that the module shares.
    event = random.SystemRandom().randrange(len(whole[name])) if at == "anywhere" else len(whole[name]) - 1
    print(f"killed before event {event}, {whole[name][event]}, of {whole[name]}")
    output = f"{name}, killed in {at}"
    process = _forks.Process(target=killed_run, args=(name, folder, output, event))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / output / "model.safetensors").exists()
    run(name, folder, output, nobody)
    assert results(folder / output) == results(folder / name)
    last, expected = (last_checkpoint(folder / each) for each in (output, name))
    assert last is not None
    assert expected is not None
    assert last.name == expected.name


@pytest.mark.slow
def test_it_stops_early_with_the_best_weights(whole: Whole, folder: Path) -> None:
    assert whole["impatient"].count("training_step") == 4
    kept = complete_checkpoints(folder / "impatient")
    assert [path.name for path in kept] == ["checkpoint-2", "checkpoint-4"]
    saved, best, last = (load_file(path / "model.safetensors") for path in (folder / "impatient", *kept))
    assert all(saved[name].equal(value) for name, value in best.items())
    assert not all(saved[name].equal(value) for name, value in last.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "number", "expected"),
    [
        ("save_pretrained", 1, "cannot write the checkpoint of step 4"),
        ("_save_optimizer_and_scheduler", 1, "cannot write the checkpoint of step 4"),
        ("save_pretrained", 3, "cannot write the trained model"),
    ],
)
def test_a_full_disk_leaves_the_previous_checkpoint(
    method: str, number: int, expected: str, whole: Whole, folder: Path
) -> None:
    event = [place for place, name in enumerate(whole["localizer"]) if name == method][number]
    good = "checkpoint-2" if "step 4" in expected else "checkpoint-5"
    output = f"full in {method} {number}"
    message = stopped(folder, output, event, "features", 100_000)
    assert message.startswith(expected)
    assert f"make room and run again to go on from the last good checkpoint, {folder / output / good}" in message
    assert last_checkpoint(folder / output) == folder / output / good
    if method == "_save_optimizer_and_scheduler":  # the one that leaves most of a checkpoint
        run("localizer", folder, output, nobody)
        assert results(folder / output) == results(folder / "localizer")


def test_a_full_disk_stops_the_computation_of_features_with_advice(folder: Path) -> None:
    message = stopped(folder, "no features", -1, "full", 1000)
    assert message.startswith(f"cannot write features to {folder / 'full'}")
    assert "make room, or choose another features.folder" in message
    assert not [path for path in (folder / "full").rglob("*") if path.is_file()]


def nobody(event: str) -> None:
    """Is told the events of a run that nobody follows."""


def stopped(folder: Path, output: str, event: int, features: str, limit: int) -> str:
    """What a localizer's training says when no file can grow beyond a limit from an event on."""
    receiver, sender = _forks.Pipe(duplex=False)
    arguments = ("localizer", folder, output, event, features, limit, sender)
    process = _forks.Process(target=run_on_a_full_disk, args=arguments)
    process.start()
    sender.close()
    message = receiver.recv()
    process.join()
    return message
