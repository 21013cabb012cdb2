"""What is named as a cluster and is none is told before anything is started."""

from __future__ import annotations

import re
import socket
from contextlib import nullcontext
from importlib import util
from threading import Thread
from typing import Any

import pytest

from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from tasks.running import runner_checks
from tasks.running.runner_checks import check_runner


@pytest.mark.parametrize(("kind", "scheme"), [("dask", "tcp://"), ("ray", "ray://"), ("ray", "")])
def test_a_place_that_takes_connections_and_says_nothing_is_no_cluster(
    kind: Any, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of Dask would wait for good, one of Ray for minutes."""
    monkeypatch.setattr(runner_checks, "ANSWERS", 0.1)
    monkeypatch.setattr(util, "find_spec", lambda name: name)  # Ray need not be here for it
    with socket.create_server(("127.0.0.1", 0)) as hole:
        runner = RunnerConfig(kind=kind, address=f"{scheme}127.0.0.1:{hole.getsockname()[1]}")
        said = f"{re.escape(str(runner.address))} .it takes a connection and says nothing"
        with pytest.raises(ConfigError, match=said):
            check_runner(runner)
    with pytest.raises(ConfigError, match="does not answer"):
        check_runner(runner)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak gRPC"),
        (b"", "closes it"),
        (b"\0\0\6\4\0\0\0\0\0\0\5\0\0\x40\0", None),
    ],
)
def test_ray_is_known_by_how_it_begins(answer: bytes, refused: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: name)

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(64)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, args=(server,), daemon=True).start()
        runner = RunnerConfig(kind="ray", address=f"ray://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ConfigError, match=refused) if refused else nullcontext():
            check_runner(runner)


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", b"220 mail ready\r\n", b"\xff" * 64])
def test_another_service_that_speaks_first_is_no_scheduler(banner: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of Dask would read the length of a message from it, and take exabytes."""
    monkeypatch.setattr(util, "find_spec", lambda name: name)

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(banner)

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, args=(server,), daemon=True).start()
        runner = RunnerConfig(kind="dask", address=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ConfigError, match="does not speak as Dask's scheduler does"):
            check_runner(runner)


@pytest.mark.parametrize("host", ["..", "a" * 70])
def test_what_is_no_name_of_a_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"runner\.address: .*label"):
        check_runner(RunnerConfig(kind="dask", address=f"tcp://{host}:8786"))


def test_a_scheduler_speaks_first() -> None:
    pytest.importorskip("distributed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp") as cluster:
        check_runner(RunnerConfig(kind="dask", address=cluster.scheduler_address))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("comm.require-encryption", True, r".*ssl_context.*; certificates stand in Dask's configuration"),
        ("nanny.preload", ["nosuchmodule"], "No module named 'nosuchmodule'"),
        ("comm.timeouts.connect", "never", ".*Invalid time unit: never"),
    ],
)
def test_why_a_cluster_does_not_start_is_said(setting: str, value: Any, words: str) -> None:
    """Dask's own configuration, or a variable DASK_... of the environment, may ask for what is not there."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")  # first, or its settings would leave with the one that is set here
    pytest.importorskip("prefect_dask")
    from tasks.running.clusters import open_workers

    with (
        dask.config.set({f"distributed.{setting}": value}),
        pytest.raises(ConfigError, match=f"this machine cannot be used: {words}"),
        open_workers(RunnerConfig(kind="dask"), 1),
    ):
        pass
