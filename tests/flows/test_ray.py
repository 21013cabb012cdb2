"""A build on a real Ray of this machine: the same bytes as from threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from talking_points.config import ConfigError
from tests.flows.building import build, published

pytest.importorskip("prefect_ray", reason="the extra 'ray' is not installed: make test-ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("orchestrator")]

SHARDS = ("limit=12", "shard_size=4")


def test_ray_makes_the_bytes_of_threads_and_refuses_what_it_has_not(drawn: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "threads", drawn, *SHARDS)
    with pytest.raises(ConfigError, match=r"resources\.local_caption: the cluster has GPU: 0, 1 are wanted"):
        build(tmp_path / "ray", drawn, *SHARDS, "runner={kind: ray, workers: 2, resources: {local_caption: {GPU: 1}}}")
    made = build(tmp_path / "ray", drawn, *SHARDS, "runner={kind: ray, workers: 2, shards_per_task: 2}")
    assert made["executed_shards"] > 10
    assert published(tmp_path / "ray") == published(tmp_path / "threads")
    assert build(tmp_path / "ray", drawn, *SHARDS, "runner=threads")["executed_shards"] == 0
