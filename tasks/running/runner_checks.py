"""What can be found out of a runner before anything is started; knows neither Prefect nor a cluster's library."""

from __future__ import annotations

import re
import socket
from importlib import util

from talking_points.config import ConfigError
from talking_points.extras import how_to_install
from talking_points.runner_config import CLUSTER_CLASSES, RunnerConfig, RunnerKind

ANSWERS = 5.0
"""Seconds that an existing cluster gets for its first answer."""


def check_runner(config: RunnerConfig) -> None:
    """What can be found out of a runner within seconds, before anything is started. Raises ``ConfigError``."""
    if not config.is_cluster:
        return
    package = f"prefect_{config.kind}"
    if util.find_spec(package) is None or util.find_spec("distributed" if config.kind == "dask" else "ray") is None:
        raise ConfigError(f"runner.kind '{config.kind}' needs its extra, {how_to_install(config.kind)}")
    if config.cluster_class is not None:
        needed = CLUSTER_CLASSES[config.cluster_class][0]
        if util.find_spec(needed) is None:
            name = needed.replace("_", "-")
            raise ConfigError(
                f"runner.cluster_class {config.cluster_class} needs the package {name}: pip install {name}"
            )
    if (place := config.host_and_port) is not None:
        try:
            with socket.create_connection(place, timeout=ANSWERS) as connection:
                _await_greeting(connection, config)
        except OSError as error:
            what = "Dask's scheduler" if config.kind == "dask" else "Ray"
            raise ConfigError(
                f"runner.address: {what} does not answer at {config.address} ({error}): start it, or "
                "correct the address"
            ) from error


def _await_greeting(connection: socket.socket, config: RunnerConfig) -> None:
    """A scheduler of Dask speaks first. Of what takes a connection and says nothing its client never lets go."""
    if config.kind != "dask" or re.match(r"(tls|wss?|ucx)://", config.address or ""):
        return
    connection.settimeout(2 * ANSWERS)
    try:
        spoken = connection.recv(1)
    except TimeoutError:
        raise OSError(f"it takes a connection and says nothing for {2 * ANSWERS:g} s") from None
    if not spoken:
        raise OSError("it takes a connection and closes it")


def advise(kind: RunnerKind, error: Exception) -> str:
    """What to do about errors in which Dask or Ray does not say it."""
    if kind == "dask":
        if "ssl_context" not in str(error):
            return ""
        return "; certificates stand in Dask's configuration: distributed.comm.tls.ca-file, .client.cert, .client.key"
    if isinstance(error, ConnectionAbortedError):
        return "; start its head with GRPC_ENABLE_FORK_SUPPORT=0, without which it may fail to begin to serve a driver"
    if isinstance(error, ConnectionError):
        return (
            "; where its head was started with a token, set RAY_AUTH_MODE=token, with the same token in "
            "~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    return ""


def last_line(error: Exception) -> str:
    """What an error says at its end, where the libraries of clusters put what matters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
