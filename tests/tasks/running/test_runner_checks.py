"""What is named as a cluster and is none is told before anything is started."""

from __future__ import annotations

import socket

import pytest

from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from tasks.running import runner_checks
from tasks.running.runner_checks import check_runner


def test_a_place_that_takes_connections_and_says_nothing_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would wait for good."""
    monkeypatch.setattr(runner_checks, "ANSWERS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        runner = RunnerConfig(kind="dask", address=f"tcp://127.0.0.1:{hole.getsockname()[1]}")
        with pytest.raises(ConfigError, match="takes a connection and says nothing"):
            check_runner(runner)
    with pytest.raises(ConfigError, match="does not answer"):
        check_runner(runner)


def test_a_scheduler_speaks_first() -> None:
    pytest.importorskip("distributed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp") as cluster:
        check_runner(RunnerConfig(kind="dask", address=cluster.scheduler_address))
