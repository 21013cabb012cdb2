"""Jobs of the learning run: processes of their own, bounded, waiting on each other through Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.learn import WAITING
from talking_points.stop_requests import Stopped
from tasks.learn import JobProcesses, run_job
from tasks.learn_jobs import Job
from tests.patience import patient, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("orchestrator")]


def note(folder: Path, name: str, needed: tuple[str, ...] = (), beside: str | None = None) -> dict[str, Any]:
    """Write when the job was under way; it ends when the job ``beside`` has begun, if one is given."""
    begin = time.monotonic()
    missing = [other for other in needed if not (folder / other).exists()]
    (folder / f"{name} began").touch()
    while beside is not None and not (folder / f"{beside} began").exists():
        assert time.monotonic() < begin + 120, f"{beside} did not begin beside {name}"
        time.sleep(0.05)
    (folder / name).write_text(json.dumps([begin, time.monotonic()]))
    return {"missing": missing, "process": os.getpid(), "seconds": 0.0, "used": sum(os.times()[:4])}


def fail() -> dict[str, Any]:
    raise ValueError("the disk is full")


@flow(task_runner=WAITING)
def run_all(jobs: list[Job]) -> dict[str, dict[str, Any]]:
    processes = JobProcesses(2)
    made: dict[str, Any] = {}
    for job in jobs:
        needed = [made[name] for name in job.after]
        made[job.name] = run_job.submit(job, processes, wait_for=needed, return_state=False)
    return {name: future.result() for name, future in made.items()}


def test_jobs_wait_for_what_they_need_and_run_side_by_side_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}
    beside = {"b": "c", "c": "b"}
    work: dict[str, Callable[[], Any]] = {
        name: partial(note, tmp_path, name, after, beside.get(name)) for name, after in needs.items()
    }
    results = run_all([Job(name, work[name], after) for name, after in needs.items()])
    assert sorted(results) == sorted(needs)
    assert all(result["missing"] == [] for result in results.values())
    assert len({result["process"] for result in results.values()} | {os.getpid()}) == 6
    for result in results.values():
        assert result["process_cpu_seconds"] == pytest.approx(result["used"], abs=0.5), "its own process alone"
    spans = {name: json.loads((tmp_path / name).read_text()) for name in needs}
    at_once = [sum(begin <= moment < end for begin, end in spans.values()) for moment, _ in spans.values()]
    assert max(at_once) == 2
    assert capsys.readouterr().out.count(" 0 s\n") == 5


def test_a_failing_job_ends_the_run_and_says_why(tmp_path: Path) -> None:
    jobs = [Job("bad", fail), Job("never", partial(note, tmp_path, "never"), ("bad",))]
    with pytest.raises(ValueError, match="the disk is full"):
        run_all(jobs)
    assert not (tmp_path / "never").exists()


def test_a_process_of_a_job_does_not_wait_for_the_orchestrator_to_be_imported() -> None:
    look = "{'seconds': 0.0, 'prefect': 'prefect' in __import__('sys').modules}"
    assert not JobProcesses(1).run(Job("looks", partial(eval, look)))["prefect"]


def test_a_stopped_run_does_not_wait_for_its_jobs(tmp_path: Path) -> None:
    processes, ends = JobProcesses(2), []

    def run(job: Job) -> None:
        with pytest.raises((BrokenProcessPool, Stopped)) as ended:
            processes.run(job)
        ends.append(ended.type)

    sleep = "(open({!r}, 'w').close(), __import__('time').sleep(600))"
    jobs = [Job(name, partial(eval, sleep.format(str(tmp_path / name)))) for name in ("a", "b", "c")]
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2, 120, "two jobs are under way")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), processes:
        raise KeyboardInterrupt
    for thread in threads:
        thread.join(60)
    assert time.monotonic() - began < patient(10)
    assert sorted(end.__name__ for end in ends) == ["BrokenProcessPool", "BrokenProcessPool", "Stopped"]


KILLED = """
import sys
from functools import partial
from tasks.learn import JobProcesses
from tasks.learn_jobs import Job

look = "(open({!r}, 'w').write(str(__import__('os').getpid())), __import__('time').sleep(600))"
if __name__ == "__main__":
    JobProcesses(1).run(Job("sleeps", partial(eval, look.format(sys.argv[1]))))
"""


def test_no_job_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    """It would hold what the next run wants to make, and the processor."""
    program, told = tmp_path / "program.py", tmp_path / "process"
    program.write_text(KILLED)
    with subprocess.Popen(
        [sys.executable, str(program), str(told)], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ) as run:
        wait_for(lambda: told.exists() and told.read_text() != "", 120, "the job is under way")
        run.kill()
    job = told.read_text()
    wait_for(lambda: not Path("/proc", job).exists(), 30, "the job has ended")
