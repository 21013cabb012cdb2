"""What nodes of Ray offer, told without a Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from tasks.running.ray_cluster import RayWorkers


def node(name: str, alive: bool = True, **resources: float) -> dict[str, object]:
    return {"NodeManagerHostname": name, "Alive": alive, "Resources": {"CPU": 2, **resources}}


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([node("one", desk=1), node("one")], None),
        ([node("one"), node("one", desk=1)], None),
        ([node("one"), node("one")], "found one: desk: 0, one: desk: 0"),
        ([node("one"), node("two", alive=False, desk=1)], "found one: desk: 0"),
    ],
)
def test_resources_of_every_node_count_also_of_several_on_one_machine(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, object]], found: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    workers = RayWorkers.__new__(RayWorkers)
    workers.config = RunnerConfig(kind="ray", resources={"local_caption": {"desk": 1}})
    if found is None:
        workers._check_resources()
        return
    with pytest.raises(ConfigError, match=found):
        workers._check_resources()
