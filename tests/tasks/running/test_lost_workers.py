"""Whoever lost workers is told which, why as far as it is known, and what to set; also where it was memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from talking_points.runner_config import RunnerConfig
from tasks.running.dask_cluster import DaskWorkers
from tasks.running.lost_workers import LostWorker, why_lost

MB = 10**6


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ([], ["their logs may say why", "dmesg"]),
        ([LostWorker("the worker a")], ["lost with the worker a: their logs"]),
        ([LostWorker("a", 100 * MB, 700 * MB)], ["a, which held, when last heard of, 100 MB of the 700 MB", "logs"]),
        ([LostWorker("a", 600 * MB)], ["held, when last heard of, 600 MB: their logs"]),
        ([LostWorker("a", 600 * MB, 700 * MB)], ["memory probably did not suffice; GIVE, or", "shard_size"]),
        (
            [*(LostWorker(f"w{number}") for number in range(6)), LostWorker("a", 690 * MB, 700 * MB, True)],
            [
                "lost with a, which was ended for its memory at 690 MB of the 700 MB",
                "and 2 more: memory did not",
                "GIVE",
            ],
        ),
    ],
)
def test_why_workers_were_lost(lost: list[LostWorker], words: list[str]) -> None:
    said = why_lost(lost, "GIVE")
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ({"address": "tcp://there:1"}, "--memory-limit"),
        ({}, "runner.cluster_kwargs.memory_limit"),
        ({"cluster_class": "dask_jobqueue.SLURMCluster"}, "runner.cluster_kwargs.memory)"),
        ({"cluster_class": "dask_kubernetes.operator.KubeCluster"}, "runner.cluster_kwargs.resources"),
    ],
)
def test_a_task_that_its_workers_of_dask_died_of_names_them_and_their_memory(
    place: dict[str, str], setting: str
) -> None:
    distributed = pytest.importorskip("distributed")
    events = {
        "all": [
            (1.0, {"action": "add-worker", "worker": "tcp://a"}),
            (2.0, {"action": "remove-worker", "worker": "tcp://a", "processing-tasks": ["key"]}),
            (3.0, {"action": "remove-worker", "worker": "tcp://b", "processing-tasks": ["another"]}),
            (4.0, {"action": "remove-worker", "worker": "tcp://c", "processing-tasks": ["key"]}),
        ],
        "worker-restart-memory": [(2.0, {"worker": "tcp://a", "pid": 1, "rss": 690 * MB})],
    }
    worker = {"name": "w0", "metrics": {"memory": 300 * MB}, "memory_limit": 700 * MB, "nthreads": 1}

    class Client:
        cluster = None

        def get_events(self, topic: str) -> Any:
            return events[topic]

        def scheduler_info(self, n_workers: int) -> Any:
            return {"workers": {"tcp://a": worker}}

    nothing: Any = SimpleNamespace(client=Client())
    workers = DaskWorkers(RunnerConfig(kind="dask", **place), 1, nothing)
    workers.window() if place else workers.waits_for("verify")  # they are looked at while they are there
    said = workers.why_lost(distributed.KilledWorker("key", SimpleNamespace(address="tcp://c"), 1))
    assert "the worker w0 (tcp://a), which was ended for its memory at 690 MB of the 700 MB" in said
    assert "the worker tcp://c" in said
    assert "tcp://b" not in said
    assert setting in said
    worker["status"] = "paused"
    workers._asked = float("-inf")
    assert "paused all workers" in workers.waits_for("verify")
    assert setting in workers.waits_for("verify")


def test_a_task_whose_scheduler_has_gone_too_says_what_is_left() -> None:
    distributed = pytest.importorskip("distributed")

    class Gone:
        cluster = None

    nothing: Any = SimpleNamespace(client=Gone())
    workers = DaskWorkers(RunnerConfig(kind="dask", address="tcp://there:1"), 1, nothing)
    said = workers.why_lost(distributed.KilledWorker("key", SimpleNamespace(address="tcp://c"), 1))
    assert said.startswith("lost with the worker tcp://c: their logs")


def test_a_task_that_its_workers_of_ray_died_of_says_why() -> None:
    exceptions = pytest.importorskip("ray", reason="the extra 'ray' is not installed: make test-ray").exceptions
    from tasks.running.ray_cluster import RayWorkers

    nothing: Any = None
    workers = RayWorkers(RunnerConfig(kind="ray", address="auto"), 1, nothing)
    for outcome, words in (
        (exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.\nMore"), "{CPU: 2}"),
        (exceptions.WorkerCrashedError(), "The worker died unexpectedly while executing this task"),
    ):
        assert workers.is_lost(outcome)
        assert words in workers.why_lost(outcome)
        assert "\n" not in workers.why_lost(outcome)
