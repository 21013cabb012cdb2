"""Damaged and invented files of a run's state: trainings, checkpoints, champions, leases. Used, or refused in words.

Who may write to an output (a folder from somebody else, a shared bucket) may have written them: what they name stays
inside, and no loop, number or nesting in them ends in a traceback. See ``tests/test_fuzz.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from commands.training_status import read_training, show_trainings
from talking_points.descriptions.backends.protocol import RequestError
from talking_points.descriptions.batches.records import BatchFile, BatchFolder, _outcome
from talking_points.descriptions.keypoint_texts import TextsError, read_texts
from talking_points.errors import InputError, RunError
from talking_points.evaluation.champions import champion_of, read_history
from talking_points.examples.pose_files import TRAINED, TrainedPoses
from talking_points.publishing.answerer_cards import select_pose_report
from talking_points.publishing.card_content import CONTENT, read_content, render_content
from talking_points.step_progress import PROGRESS, Spent
from talking_points.training.checkpoints import COMPLETE, STATE, check_checkpoint
from talking_points.training.made_once import FINISHED, STARTED, find_finished, make_once
from talking_points.training.sample_tables import rewind
from talking_points.whole_files import read_json
from tasks.running import lease
from tasks.running.storage import Storage
from tests.fuzz import CASES, Odd, harmless
from tests.test_fuzz import outcomes, write_anew, written

pytestmark = pytest.mark.slow

SETTINGS = {"seed": 1, "localizer": {"epochs": 2.0}}
NAMES = ("../elsewhere", "/etc", "a/b", "", 10**400, -(10**400), "x" * 5000, "\x1b[31m")


def try_all(folder: Path, case: Callable[[Odd], object], *refusals: type[Exception]) -> None:
    """A fifth of the usual cases each: these files are small, and alike."""
    with harmless(folder):
        outcomes(case, *refusals, cases=CASES // 5)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    def train(folder: Path) -> dict[str, float]:
        (folder / "model.safetensors").write_bytes(b"weights")
        return {"loss": 1.0, "step": 3}

    folder = tmp_path / "localizer"
    make_once(folder, "localizer", SETTINGS, train)
    return folder


def test_what_a_finished_stage_says(finished: Path, tmp_path: Path) -> None:
    said = json.loads((finished / FINISHED).read_text())

    def case(odd: Odd) -> None:
        write_anew(finished / FINISHED, written(odd, said, NAMES))
        way = odd.randrange(3)
        if way == 0:
            found = find_finished(finished, "localizer", SETTINGS)
            assert found is not None
            assert (found["path"], found["stage"]) == (str(finished), "localizer")
            assert math.isfinite(found["seconds"] + found["cpu_seconds"])
        elif way == 1:
            read_content(finished, "localizer")
        else:
            show_trainings("x", [read_training(finished)])

    try_all(tmp_path, case, InputError)


def test_progress_of_a_stage(tmp_path: Path) -> None:
    (tmp_path / STARTED).write_text("{}")
    told = {
        "what": "localizer", "done": 3, "total": 5, "values": {"loss": 1.0}, "seconds_left": 3.0, "line": "step 3",
        "spent": {"seconds": 1.0, "cpu_seconds": 2.0},
    }  # fmt: skip

    def case(odd: Odd) -> None:
        write_anew(tmp_path / PROGRESS, written(odd, told, NAMES))
        show_trainings("x", [read_training(tmp_path)])
        assert 0 <= Spent(tmp_path).so_far()["seconds"] < math.inf

    try_all(tmp_path, case)


def test_settings_that_a_stage_was_begun_with(finished: Path, tmp_path: Path) -> None:
    def case(odd: Odd) -> None:
        write_anew(
            finished / STARTED, written(odd, SETTINGS, NAMES) if odd.random() < 0.9 else json.dumps(SETTINGS).encode()
        )
        find_finished(finished, "localizer", SETTINGS)

    try_all(tmp_path, case, InputError)


def test_champions_and_the_history_of_runs(tmp_path: Path) -> None:
    champion = {"run": "abc", "mpck": 50.0, "previous": {"run": "xyz", "mpck": 40.0, "previous": None}}
    interval = {"low": 1.0, "high": 60.0}
    row = {
        "run": "abc", "at": "2026-01-01T00:00:00+00:00", "mpck": 50.0, "interval": interval, "points": 9,
        "above_text_only": {"difference": 3.0}, "against": None, "difference": None, "promoted": True,
    }  # fmt: skip

    def case(odd: Odd) -> None:
        if odd.random() < 0.5:
            write_anew(tmp_path / "champion.json", written(odd, champion, NAMES))
            found = champion_of(tmp_path)
            rows = [] if found is None else [found]
        else:
            write_anew(tmp_path / "history.jsonl", written(odd, row, NAMES) + b"\n" + json.dumps(row).encode() + b"\n")
            rows = read_history(tmp_path / "history.jsonl")
            assert all(f"{row['interval']['low']:.1f} {row['mpck']:.2f} {row['at']}" for row in rows)
        assert all((tmp_path / "runs" / found["run"]).parent == tmp_path / "runs" for found in rows)

    try_all(tmp_path, case, InputError)


def test_states_of_checkpoints(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / COMPLETE).write_text("{}")
    state = {
        "global_step": 3, "max_steps": 9, "epoch": 0.5, "best_metric": 1.0, "best_model_checkpoint": "a/checkpoint-3",
        "log_history": [{"step": 1, "loss": 2.0, "epoch": 0.1}], "stateful_callbacks": {"TrainerControl": {}},
    }  # fmt: skip

    def case(odd: Odd) -> None:
        write_anew(checkpoint / STATE, written(odd, state, NAMES))
        check_checkpoint(checkpoint)

    try_all(tmp_path, case, InputError)


def test_tables_of_samples(tmp_path: Path) -> None:
    path, rows = tmp_path / "samples.jsonl", [{"step": 1, "id": "a"}, {"step": 2, "id": "b"}]

    def case(odd: Odd) -> None:
        lines = [written(odd, row, NAMES) if odd.random() < 0.5 else json.dumps(row).encode() for row in rows]
        write_anew(path, b"\n".join(lines) + b"\n")
        rewind(path, 2)

    try_all(tmp_path, case, InputError)


def test_what_a_model_was_trained_on(tmp_path: Path) -> None:
    said = {"categories": {"3": "cat"}, "sets": ["mp100/cat"], "names": ["nose"], "mean_pose": {"": [0.1, 0.2]}}
    said["own"] = {"crane": ["hook"]}

    def case(odd: Odd) -> None:
        write_anew(tmp_path / TRAINED, written(odd, said, NAMES))
        found = TrainedPoses.read(tmp_path)
        assert found is not None
        assert sorted(set(found.categories.values())) is not None
        assert all(math.isfinite(x + y) for x, y in found.mean_pose.values())
        assert all(isinstance(name, str) for names in found.own.values() for name in names)

    try_all(tmp_path, case, InputError)


def test_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = lease.this_process()
    monkeypatch.setattr(lease, "this_process", lambda: me)  # asks for the name of the machine
    storage = Storage(tmp_path)
    path = tmp_path / lease.LEASES / "00000001.json"
    path.parent.mkdir(parents=True)
    held: dict[str, Any] = asdict(lease.LeaseFile(1, me, time=2e9))

    def case(odd: Odd) -> None:
        write_anew(path, written(odd, held, NAMES))
        found = lease.find_holder(storage)
        if found is not None:
            assert found.age >= 0
            str(found.owner).encode()
        read = lease.read_lease(storage)
        if read is not None:
            lease.Fence(number=read.number + 1, takeovers=read.takeovers + 1)

    try_all(tmp_path, case, RunError)


def test_contents_of_cards_and_reports_of_keypoints(tmp_path: Path) -> None:
    content = {
        "name": "point-localizer", "role": "localizer", "config": {"a": {"b": 1}}, "note": "n", "dataset": "d",
        "training": {"seconds": 3.0, "metrics": {"loss": 1.0}}, "terms": [{"name": "n", "terms": "t"}], "free": False,
    }  # fmt: skip
    cape = dict.fromkeys(("pck@0.05", "pck@0.1", "pck@0.15", "pck@0.2", "pck@0.25", "mpck"), 3.0)
    part = {
        "partition": 1, "objects": 3, "points": 9, "seen_categories": ["a"],
        "answers": {"model": {"cape": cape, "unparsed": 0}}, "groups": {"all": {"answers": {"model": cape}}},
    }  # fmt: skip
    report = {"texts": "rules", "split": "test", "partitions": [part]}

    def case(odd: Odd) -> None:
        if odd.random() < 0.5:
            write_anew(tmp_path / CONTENT, written(odd, content, NAMES))
            render_content(read_content(tmp_path, "localizer"), "org/name", tmp_path)
        else:
            write_anew(tmp_path / "report.json", written(odd, report, NAMES))
            found = read_json(tmp_path / "report.json", "evaluate again")
            poses = select_pose_report(found)
            render_content({**content, "role": "answerer", "poses": poses}, "org/name", tmp_path)

    with harmless(tmp_path):
        outcomes(case, ValueError, cases=CASES // 20)


def test_records_of_batches_and_what_came_of_requests(tmp_path: Path) -> None:
    record = asdict(BatchFile("00000", 3))
    came: list[dict[str, Any]] = [
        {"text": "a", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2},
        {"reason": "timeout", "detail": "late", "retryable": True},
    ]
    with BatchFolder(tmp_path / "batches") as folder:

        def case(odd: Odd) -> None:
            write_anew(tmp_path / "batches" / "00000.json", written(odd, record, NAMES))
            for found in folder.files():
                assert folder.input_of(found).parent == folder.path
                assert found.requests + 1 > 0
                assert not folder.waiting(found)
            outcome = _outcome(written(odd, odd.choice(came), NAMES).decode(errors="replace"))
            if isinstance(outcome, RequestError):
                assert isinstance(outcome.reason + outcome.detail, str)
            elif outcome is not None:
                assert isinstance(outcome.text + outcome.finish_reason, str)

        try_all(tmp_path, case)


def test_files_of_texts_about_keypoints(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    row = {"set": "a", "keypoint": "b", "index": 1, "text": "t", "author": "a", "version": 1, "provenance": "p"}

    def case(odd: Odd) -> None:
        write_anew(path, written(odd, row, NAMES) + b"\n" + json.dumps({**row, "keypoint": "c"}).encode())
        for found in read_texts(path):
            f"{found.set}{found.keypoint}{found.text}".encode()

    try_all(tmp_path, case, TextsError)
