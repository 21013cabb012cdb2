"""What can be found out of a runner before anything is started; knows neither Prefect nor a cluster's library."""

from __future__ import annotations

import re
import socket
from importlib import util

from talking_points.config import ConfigError
from talking_points.extras import how_to_install
from talking_points.runner_config import CLUSTER_CLASSES, RunnerConfig

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
                if config.kind == "dask" and not re.match(r"(tls|wss?|ucx)://", config.address or ""):
                    # A scheduler speaks first. For one that says nothing Dask's client would wait without end.
                    connection.settimeout(2 * ANSWERS)
                    connection.recv(1)
        except OSError as error:
            what = "Dask's scheduler" if config.kind == "dask" else "Ray"
            raise ConfigError(
                f"runner.address: {what} does not answer at {config.address} ({error}): start it, or "
                "correct the address"
            ) from error
