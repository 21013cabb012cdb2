"""What a build says about itself: counts, and how long it has to go."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tasks.running.manifests import Details, Manifest
from tasks.running.progress import STATUS_FILE, BuildProgress
from tasks.running.status_tables import COLUMNS, stage_notes, stage_rows, worker_notes
from tasks.running.storage import Storage

pytestmark = pytest.mark.usefixtures("orchestrator")


def manifest(stage: str, number: int, seconds: float, **details: Any) -> Manifest:
    return Manifest(
        stage=stage, shard=number, path="", rows=10, rejected={"empty": 1}, files={},
        seconds=seconds, details=Details(**details),  # type: ignore[typeddict-item]
    )  # fmt: skip


@pytest.fixture
def progress(tmp_path: Path) -> BuildProgress:
    planned = {"local_caption": 1.0, "generate": 3.0, "refine": None}
    return BuildProgress(Storage(str(tmp_path)), Console(file=io.StringIO(), width=200), planned=planned, workers=2)


def test_the_estimate_corrects_the_plan_by_what_was_measured(progress: BuildProgress) -> None:
    progress.begin("local_caption", 4, 40)
    before = progress.estimate()
    assert before == {"seconds_left": (40 * 1.0 + 40 * 3.0) / 2, "unknown": ["refine"]}
    # Ten rows took 20 seconds where the plan says 10: everything planned takes twice as long.
    progress.finish_shard("local_caption", manifest("local_caption", 0, 20.0), reused=False)
    assert progress.estimate()["seconds_left"] == (3 * 20.0 + 40 * 3.0 * 2) / 2
    printed = progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert "the whole build: about 2 min 30 s to go, refine not yet known" in printed
    for number in (1, 2, 3):
        progress.finish_shard("local_caption", manifest("local_caption", number, 20.0), reused=False)
    progress.begin("generate", 4, 40)
    progress.finish_shard("generate", manifest("generate", 0, 30.0), reused=False)
    assert progress.estimate()["seconds_left"] == 3 * 30.0 / 2


def test_reused_shards_say_nothing_about_the_time_to_come(progress: BuildProgress) -> None:
    progress.begin("refine", 2, 20)
    progress.finish_shard("refine", manifest("refine", 0, 99.0), reused=True)
    assert "refine" in progress.estimate()["unknown"]


def test_requests_and_tokens_are_added_up_and_stored(progress: BuildProgress) -> None:
    progress.begin("generate", 2, 20)
    for number in (0, 1):
        spent = {"requests": 11, "tokens_in": 500, "tokens_out": 70}
        progress.finish_shard("generate", manifest("generate", number, 1.0, **spent), reused=False)
    progress.end("generate")
    stored = progress.storage.read_json(STATUS_FILE)
    assert stored["estimate"]["unknown"] == ["refine"]
    rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in stage_rows(stored)}
    assert (rows["generate"]["shards"], rows["generate"]["rejected"]) == ("2/2", "2")
    assert (rows["refine"]["shards"], rows["verify"]["left"]) == ("to come", "")
    assert stage_notes(stored) == [
        "generate: empty 2, 22 requests, 1,000 tokens read, 140 written, 10 rows/s per worker"
    ]
    assert "1,000 tokens read, 140 written" in progress.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_stage_is_shown_from_its_first_moment(progress: BuildProgress) -> None:
    """Also in a run that goes on where another was stopped, whose status lies there still."""
    progress.storage.write_json(STATUS_FILE, dict(progress.summary()) | {"state": "stopped"})
    with progress:
        assert progress.storage.read_json(STATUS_FILE)["state"] == "running"
        progress.begin("generate", 3, 30)
        stored = progress.storage.read_json(STATUS_FILE)
        assert [row[:2] for row in stage_rows(stored) if row[1] != "to come"] == [["generate", "0/3"]]


def test_rules_are_not_said_to_have_answered_requests(progress: BuildProgress) -> None:
    progress.begin("refine", 1, 10)
    progress.finish_shard("refine", manifest("refine", 0, 1.0, requests=10, tokens_in=0, tokens_out=80), reused=False)
    assert stage_notes(progress.summary()) == ["refine: empty 1, 10 rows/s per worker"]


def test_the_estimate_counts_the_workers_that_a_cluster_has(progress: BuildProgress) -> None:
    progress.begin("local_caption", 10, 100)
    progress.finish_shard("local_caption", manifest("local_caption", 0, 4.0), reused=False)
    progress.show_workers([{"worker": f"w{number}", "threads": 2, "tasks": []} for number in range(3)])
    assert progress.seconds_left()["local_caption"] == 9 * 4.0 / 6
    progress.show_workers([])
    assert progress.seconds_left()["local_caption"] == 9 * 4.0 / 6, "what it will have again is not known"


def test_what_a_build_waits_for_is_in_its_status(progress: BuildProgress) -> None:
    console = progress.console.file
    for line in ("waiting for the first worker of here", "2 worker(s) connected: looking what they run and see"):
        progress.wait(line)
        assert worker_notes(progress.storage.read_json(STATUS_FILE)) == [line]
    progress.begin("index", 1, 0)
    assert worker_notes(progress.storage.read_json(STATUS_FILE)) == []
    waiting, nobody = (
        "no worker has GPU: 1, which index takes: the build goes on when one has",
        "no worker is connected",
    )
    workers = [{"worker": "w0", "threads": 1, "tasks": ["index"]}]
    for found, line in ((workers, waiting), (workers, waiting), ([], nobody), ([], nobody), (workers, "")):
        progress.show_workers(found, line)
        status = progress.storage.read_json(STATUS_FILE)
        assert status["workers"] == found, "what is waited for is told with what is done then"
        notes = worker_notes(status)
        assert [note for note in notes if note in (waiting, nobody)] == ([line] if line else [])
    assert isinstance(console, io.StringIO)
    assert [console.getvalue().count(line) for line in (waiting, nobody)] == [1, 1], "said once"
