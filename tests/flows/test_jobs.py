from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.jobs import Job, run_jobs


def note(folder: Path, name: str, needed: tuple[str, ...] = (), seconds: float = 0.0) -> dict[str, Any]:
    begin = time.monotonic()
    missing = [other for other in needed if not (folder / other).exists()]
    time.sleep(seconds)
    (folder / name).write_text(json.dumps([begin, time.monotonic()]))
    return {"missing": missing, "process": os.getpid()}


def fail() -> dict[str, Any]:
    raise ValueError("the disk is full")


def spend(seconds: float) -> dict[str, Any]:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return {}


@pytest.mark.slow
def test_jobs_wait_for_what_they_need_and_run_side_by_side(tmp_path: Path) -> None:
    needs: dict[str, tuple[str, ...]] = {"d": ("b", "c"), "a": (), "b": ("a",), "c": ("a",), "e": ()}
    jobs = [Job(name, partial(note, tmp_path, name, after, 1.0), after) for name, after in needs.items()]
    seen: list[str] = []
    results = run_jobs(jobs, 2, lambda name, _: seen.append(name))
    assert sorted(seen) == sorted(needs)
    assert all(result["missing"] == [] for result in results.values())
    assert len({result["process"] for result in results.values()} | {os.getpid()}) == 6
    spans = {name: json.loads((tmp_path / name).read_text()) for name in needs}
    at_once = [sum(begin <= moment < end for begin, end in spans.values()) for moment, _ in spans.values()]
    assert max(at_once) == 2


@pytest.mark.slow
def test_the_first_ready_job_of_the_list_goes_first(tmp_path: Path) -> None:
    needs: dict[str, tuple[str, ...]] = {"last": ("first",), "first": (), "other": ()}
    seen: list[str] = []
    run_jobs([Job(n, partial(note, tmp_path, n), after) for n, after in needs.items()], 1, lambda n, _: seen.append(n))
    assert seen == ["first", "last", "other"]


@pytest.mark.slow
def test_a_failing_job_ends_the_run_and_says_why(tmp_path: Path) -> None:
    jobs = [Job("bad", fail), Job("never", partial(note, tmp_path, "never"), ("bad",))]
    with pytest.raises(ValueError, match="the disk is full"):
        run_jobs(jobs, 2, lambda *_: None)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_the_time_of_a_job_is_that_of_its_own_process() -> None:
    results = run_jobs([Job("long", partial(spend, 2.0)), Job("short", partial(spend, 0.2))], 2, lambda *_: None)
    assert 2.0 <= results["long"]["process_cpu_seconds"] < 5.0
    assert 0.2 <= results["short"]["process_cpu_seconds"] < 2.0


@pytest.mark.parametrize(
    "jobs",
    [[Job("a", fail, ("b",))], [Job("a", fail), Job("a", fail)]],
    ids=["unknown", "twice"],
)
def test_jobs_that_do_not_belong_together_are_refused(jobs: list[Job]) -> None:
    with pytest.raises(ValueError, match="names"):
        run_jobs(jobs, 1, lambda *_: None)
