"""What can be found out of a runner before anything is started; knows neither Prefect nor a cluster's library."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from importlib import util

from talking_points.cluster_settings import CLUSTER_CLASSES
from talking_points.config import ConfigError
from talking_points.extras import how_to_install
from talking_points.runner_config import RunnerConfig, RunnerKind

ANSWERS = 5.0
"""Seconds that an existing cluster gets for its first answer."""

_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""The frame with which each side of HTTP/2 begins, here without any: length, type, flags, stream."""

_LENGTH = struct.Struct("<Q")
"""What a message of Dask begins with: the length of what follows."""
_MOST_SPOKEN = 1 << 20
"""Bytes of a scheduler's first message, at most."""

_HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS


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
        except (OSError, UnicodeError) as error:  # a name of a machine has parts of 63 letters at most
            what = "Dask's scheduler" if config.kind == "dask" else "Ray"
            raise ConfigError(
                f"runner.address: {what} does not answer at {config.address} ({error}): start it, or "
                "correct the address"
            ) from error


def _await_greeting(connection: socket.socket, config: RunnerConfig) -> None:
    """Of what takes a connection and says nothing a client of Dask never lets go, and one of Ray after minutes.

    A scheduler of Dask speaks first; Ray answers the beginning of HTTP/2 with its settings.
    """
    hidden = re.match(r"(tls|wss?|ucx)://", config.address or "") if config.kind == "dask" else _is_on("RAY_USE_TLS")
    if hidden:
        return
    deadline, spoken = time.monotonic() + 2 * ANSWERS, b""
    wanted = len(_SETTINGS) if config.kind == "ray" else _LENGTH.size
    try:
        if config.kind == "ray":
            connection.sendall(_HTTP_2)
        while len(spoken) < wanted:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            if not (more := connection.recv(64)):
                raise OSError("it takes a connection and closes it")
            spoken += more
    except TimeoutError:
        raise OSError(f"it takes a connection and says nothing for {2 * ANSWERS:g} s") from None
    if config.kind == "ray" and spoken[3:5] != _SETTINGS[3:5]:
        raise OSError("what answers there does not speak gRPC, as Ray does")
    # Of the banner of another service a client of Dask would make a length, and take so much memory.
    if config.kind == "dask" and _LENGTH.unpack_from(spoken)[0] > _MOST_SPOKEN:
        raise OSError("what answers there does not speak as Dask's scheduler does")


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")


def advise(kind: RunnerKind, error: BaseException) -> str:
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


def cause_of(error: BaseException) -> BaseException:
    """What an error was raised from in the first place: a cluster that does not start says only that it does not."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def last_line(error: BaseException) -> str:
    """What an error says at its end, where the libraries of clusters put what matters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
