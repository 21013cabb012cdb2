"""Schedulers and workers of Dask that do not have the project, or another one, are named, all of them, before any is
sent what it could not read; a stage that nobody can do is said.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from tasks.running import dask_packages
from tasks.running.dask_cluster import DaskWorkers
from tasks.running.dask_packages import find_other_packages
from tasks.running.status_tables import worker_notes
from tasks.running.worker_checks import Expectation
from tasks.running.workers import refuse_different

EXPECTED = Expectation(
    token="", python="3.11", code="", roots={}, output="", lease=1, results=None, api=None, needs={},
    packages={"talking-points": "1.0", "numpy": "2.0", "prefect": "3.0", "dask": "5.0", "distributed": "5.0"},
)  # fmt: skip
SAME: dict[str, str | None] = {"python": "3.11.7.final.0", **EXPECTED.packages}
BARE = dict.fromkeys(SAME) | {"python": "3.11.7.final.0", "dask": "5.0", "distributed": "5.0"}
PLACE = "tcp://10.0.0.1:1"


class Cluster:
    """Answers for a scheduler and one worker as Dask does; a worker whose packages are None never answers."""

    def __init__(self, scheduler: dict[str, str | None], worker: dict[str, str | None] | None) -> None:
        self.own, self.worker = scheduler, worker
        self.scheduler = self

    def sync(self, function: Any, *arguments: Any) -> Any:
        return asyncio.run(function(*arguments))

    async def versions(self, packages: list[str]) -> dict[str, Any]:
        assert packages == list(EXPECTED.packages)
        return {"packages": self.own}

    async def broadcast(self, msg: dict[str, Any], workers: list[str], on_error: str) -> dict[str, Any]:
        assert msg == {"op": "versions", "packages": list(EXPECTED.packages)}
        if self.worker is None:
            await asyncio.sleep(60)
        return {workers[0]: {"packages": self.worker}}


@pytest.mark.parametrize(
    ("scheduler", "worker", "name", "says"),
    [
        (SAME, SAME, "w0", ""),
        (SAME, None, "w0", ""),
        (SAME | {"numpy": "1.0"}, SAME, "w0", ""),
        (BARE, SAME, "w0", r"the scheduler .* the package 'talking-points' is not installed; .*\[dask\]"),
        (SAME | {"distributed": "4.0"}, SAME, "w0", r"the scheduler .* it has distributed 4\.0, the build 5\.0; .*"),
        (SAME, BARE, "w0", r"the worker w0 \(tcp://.*\) .* the package 'talking-points' is not installed; .*"),
        (SAME, BARE, PLACE, r"the worker tcp://\S+ cannot do .* is not installed; .*"),
        (SAME, SAME | {"numpy": None}, "w0", r"the worker w0 .* it has no numpy, the build 2\.0; .*"),
        (SAME, SAME | {"python": "3.12.1.final.0"}, "w0", r"the worker w0 .* it runs Python 3\.12, the build 3\.11"),
        (BARE, BARE, "w0", r"the scheduler, the worker w0 .* is not installed; .*"),
    ],
)  # fmt: skip
def test_who_has_other_packages_is_named(
    scheduler: dict[str, str | None],
    worker: dict[str, str | None] | None,
    name: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_packages, "ANSWERS", 0.05)
    found = find_other_packages(Cluster(scheduler, worker), {PLACE: {"name": name}}, EXPECTED)
    if not says:
        assert found == {}
        return
    with pytest.raises(ConfigError) as refused:
        refuse_different(found)
    assert re.match(says, str(refused.value))


def test_everyone_who_differs_is_named_at_once() -> None:
    found = {f"worker w{number}": ["it lacks this"] for number in range(7)} | {"worker v": ["that"], "worker u": []}
    with pytest.raises(ConfigError) as refused:
        refuse_different(found)
    first, second = str(refused.value).splitlines()
    assert first.startswith("the worker w0, the worker w1") and "w4 and 2 more cannot do" in first  # noqa: PT018
    assert second == "the worker v cannot do the tasks of this build: that"


BOTH = {"GPU": 1.0, "RAM": 8.0}


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        ([], "no worker is connected"),
        ([{"GPU": 1}, {"RAM": 8}], "no worker has GPU: 1, RAM: 8, which refine takes"),
        ([{}, {"GPU": 2, "RAM": 8}], ""),
    ],
)
def test_two_workers_together_do_no_task(
    offered: list[dict[str, float]], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = DaskWorkers.__new__(DaskWorkers)
    workers.config = RunnerConfig(kind="dask", address="tcp://a:1", resources={"refine": BOTH})
    known = [{"name": f"w{number}", "resources": resources} for number, resources in enumerate(offered)]
    monkeypatch.setattr(workers, "_known", lambda: known, raising=False)
    assert workers.waits_for("refine").startswith(says) and bool(workers.waits_for("refine")) == bool(says)  # noqa: PT018
    if says and offered:
        with pytest.raises(ConfigError, match=r"refine: no worker has GPU: 1, RAM: 8 .*--resources GPU=1,RAM=8'"):
            workers._check_resources()
    assert (workers.waits_for("verify") == "") == bool(offered)


@pytest.mark.parametrize(
    ("seen", "status", "says"),
    [(1000.0, "running", ""), (975.0, "running", ""), (950.0, "running", "not heard of for 50 s"),
     (1000.0, "paused", "paused by Dask, as it has little memory left")],
)  # fmt: skip
def test_a_worker_that_does_not_go_on_is_told_from_one_that_works(
    seen: float, status: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        "tcp://a:1": {"name": "w0", "nthreads": 1, "last_seen": seen, "status": status},
        "tcp://a:2": {"name": "w1", "nthreads": 1, "last_seen": 1000.0, "status": "running"},
    }

    class Client:
        def processing(self) -> dict[str, list[str]]:
            return {"tcp://a:1": ["key"], "tcp://a:2": []}

        def scheduler_info(self, n_workers: int) -> dict[str, Any]:
            return {"workers": known}

    workers = DaskWorkers.__new__(DaskWorkers)
    workers._titles = {"key": "verify 1/2"}
    monkeypatch.setattr(DaskWorkers, "client", Client())
    found = workers.describe(lambda order: None)
    assert [worker["note"] for worker in found] == [says, ""]
    notes = worker_notes({"workers": found, "stages": {}, "seconds": 1, "state": "running"})
    assert notes[1:] == [f"w0: verify 1/2{f' ({says})' if says else ''}", "w1: idle"]
