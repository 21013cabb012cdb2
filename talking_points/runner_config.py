"""Where the tasks of a build run: in this process, in worker processes, or on a cluster of Dask or Ray.

Nothing here can change a row of a dataset, so nothing of it is in a fingerprint. A configuration names a kind of
cluster from a fixed list, with settings from a fixed list: it can neither import a module nor pass on a command
(``cluster_settings``).
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from talking_points.cluster_settings import CLUSTER_CLASSES, MOST_WORKERS, find_unfit
from talking_points.config import Section, suggest
from talking_points.stage_names import BUILD_STAGES, INSTRUCTION_STAGES

RunnerKind = Literal["threads", "processes", "dask", "ray"]
CLUSTERS: tuple[RunnerKind, ...] = ("dask", "ray")
"""The kinds whose workers may be on other machines."""

PLACED_STAGES = tuple(dict.fromkeys((*BUILD_STAGES, *INSTRUCTION_STAGES)))
"""The stages that resources go by."""

_PLACE = r"(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]{1,253}):(?P<port>[0-9]{1,5})"
_DASK_ADDRESS = re.compile(rf"(?:(?:tcp|tls|ws|wss|ucx)://)?{_PLACE}")
_RAY_ADDRESS = re.compile(rf"(?:ray://)?{_PLACE}")
_RESOURCE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]*")
"""What a worker's resource is called, as it stands on the command line of one that is started."""


class RunnerConfig(Section):
    """Where tasks run, and what becomes of those that are lost with their worker."""

    kind: RunnerKind = Field(
        default="threads", description="threads, processes: on this machine; dask, ray: a cluster (docs/clusters.md)"
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=MOST_WORKERS,
        description="tasks that run at the same time; of an existing cluster: as many as it has threads",
    )
    address: str | None = Field(
        default=None, description="of an existing cluster: tcp://HOST:8786 of Dask's scheduler, ray://HOST:10001 of Ray"
    )
    cluster_class: str | None = Field(
        default=None, description="the cluster that Dask starts for the build; default: workers on this machine"
    )
    cluster_kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="settings of the cluster class")
    resources: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="what a task of a stage takes of its worker: {local_caption: {GPU: 1}}"
    )
    retries_of_lost_workers: int = Field(
        default=3, ge=0, le=1000, description="how often a task is run again whose worker was lost"
    )
    shards_per_task: int | Literal["auto"] = Field(
        default=1, description="shards of one task run; auto: so many that it takes about two minutes"
    )

    @property
    def is_cluster(self) -> bool:
        """Whether its workers may be on other machines."""
        return self.kind in CLUSTERS

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """Where an existing cluster is to answer; None without an address, and for Ray's "auto"."""
        pattern = _RAY_ADDRESS if self.kind == "ray" else _DASK_ADDRESS
        found = pattern.fullmatch(self.address or "")
        return (found["host"].strip("[]"), int(found["port"])) if found else None

    @field_validator("shards_per_task")
    @classmethod
    def _at_least_one(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected a number of at least 1, or auto")
        return value

    @field_validator("cluster_class")
    @classmethod
    def _known_class(cls, name: str | None) -> str | None:
        if name is not None and name not in CLUSTER_CLASSES:
            raise ValueError(
                f"expected one of {', '.join(CLUSTER_CLASSES)}{suggest(name, list(CLUSTER_CLASSES))}; a cluster of "
                "another kind is started beside the build, and named by its address"
            )
        return name

    @field_validator("resources")
    @classmethod
    def _known_stages(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for stage, wanted in value.items():
            if stage not in PLACED_STAGES:
                raise ValueError(
                    f"no stage '{stage}': expected one of {', '.join(PLACED_STAGES)}{suggest(stage, PLACED_STAGES)}"
                )
            for name, amount in wanted.items():
                if not _RESOURCE.fullmatch(name):
                    raise ValueError(f"{stage}: a resource is called like GPU or memory.fast, found '{name[:80]}'")
                if amount <= 0:
                    raise ValueError(f"{stage}.{name}: expected more than 0, found {amount:g}")
        return value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> RunnerConfig:
        kind = self.kind
        for name in ("address", "resources"):
            if getattr(self, name) and not self.is_cluster:
                raise ValueError(f"{name}: only workers of a cluster have one: set runner.kind=dask or ray")
        if self.cluster_class is not None and kind != "dask":
            raise ValueError(f"cluster_class: a cluster of Dask, but runner.kind is {kind}")
        if self.address is not None and (self.cluster_class is not None or self.cluster_kwargs):
            raise ValueError("address names a cluster that exists, cluster_class and cluster_kwargs start one: set one")
        if self.address is not None and not (kind == "ray" and self.address == "auto"):
            place = self.host_and_port
            if place is None or not 0 < place[1] < 65536:
                form = "ray://HOST:10001" if kind == "ray" else "tcp://HOST:8786"
                raise ValueError(f"address: expected the form {form}")
        self._check_kwargs()
        return self

    def _check_kwargs(self) -> None:
        if self.cluster_kwargs and self.kind != "dask":
            raise ValueError(f"cluster_kwargs: settings of a cluster of Dask, but runner.kind is {self.kind}")
        unfit = find_unfit(self.cluster_class or "distributed.LocalCluster", self.cluster_kwargs)
        if unfit is not None:
            raise ValueError(unfit)


def runner_as_section(data: Any) -> Any:
    """The settings of a build as given, where ``runner: processes`` stands for ``runner: {kind: processes}``.

    The ``workers`` of that section are those of the build.
    """
    if not isinstance(data, dict) or "runner" not in data:
        return data
    runner = data["runner"]
    if isinstance(runner, str):
        runner = {"kind": runner}
    workers = getattr(runner, "workers", None) if isinstance(runner, RunnerConfig) else None
    if isinstance(runner, dict):
        workers = runner.get("workers")
    return data | {"runner": {} if runner is None else runner} | ({} if workers is None else {"workers": workers})


def database_url(url: str | None) -> str | None:
    """The URL of a shared request cache, of the one kind of database that there is."""
    if url and not re.fullmatch(r"postgresql(\+psycopg)?://\S+/\S+", url):
        raise ValueError("expected postgresql://HOST/DATABASE, with the user, if any, before the host")
    if url:
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ValueError(
                "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where @ : / of a password are %40 %3A %2F"
            ) from None
    return url or None
