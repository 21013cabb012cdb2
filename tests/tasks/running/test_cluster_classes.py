"""What the examples of the page on clusters make of Slurm and Kubernetes, without either."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from talking_points.runner_config import RunnerConfig
from tasks.running.clusters import open_workers
from tasks.running.dask_cluster import PRELOAD, DaskWorkers, _cluster_kwargs
from tests.patience import wait_for

PAGE = Path(__file__).resolve().parents[3] / "docs" / "clusters.md"


def settings(package: str) -> dict[str, Any]:
    """What the cluster class of the page's example is given; the resources are those of a stage on a GPU."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = [block for block in blocks if f"cluster_class: {package}" in block]
    found = RunnerConfig.model_validate(
        yaml.safe_load(text)["runner"] | {"resources": {"local_caption": {"GPU": 1}, "refine": {"GPU": 2, "RAM": 8}}}
    )
    return _cluster_kwargs(found, found.workers or 1)


def test_slurm_is_given_a_job_with_the_workers_resources() -> None:
    given = settings("dask_jobqueue")
    assert given["worker_extra_args"] == ["--preload", PRELOAD, "--resources", "GPU=2,RAM=8"]
    jobs = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    options = {"host": "127.0.0.1", "dashboard_address": None}
    with jobs.SLURMCluster(**given | {"n_workers": 0, "scheduler_options": options}) as cluster:
        script = cluster.job_script()
    assert "#SBATCH --gres=gpu:1\n" in script
    assert "#SBATCH -t 04:00:00\n" in script
    assert f"--nthreads 1 --memory-limit 29.80GiB --nanny --death-timeout 60 --preload {PRELOAD}" in script
    assert script.rstrip().endswith("--resources GPU=2,RAM=8")


def test_kubernetes_is_given_workers_with_the_resources() -> None:
    given = settings("dask_kubernetes")
    assert given["worker_command"] == [
        "dask-worker",
        "--nthreads",
        "1",
        "--preload",
        PRELOAD,
        "--resources",
        "GPU=2,RAM=8",
    ]
    operator = pytest.importorskip("dask_kubernetes.operator", reason="dask-kubernetes is not installed")
    spec = operator.make_cluster_spec(**{name: value for name, value in given.items() if name != "namespace"})
    (container,) = spec["spec"]["worker"]["spec"]["containers"]
    assert container["image"] == "registry.example/talking-points:latest"
    assert container["args"][:7] == given["worker_command"]


def test_a_worker_whose_job_has_ended_gets_a_successor() -> None:
    dask = pytest.importorskip("dask", reason="the extra 'dask' is not installed")
    pytest.importorskip("distributed")  # first, or its settings would leave with the one that is set here
    own: dict[str, Any] = {"processes": False, "preload": [], "n_workers": 2}
    config = RunnerConfig.model_construct(kind="dask", cluster_kwargs=own)
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}), open_workers(config, 2) as workers:
        assert isinstance(workers, DaskWorkers)
        cluster = workers.client.cluster
        before = {worker.address for worker in cluster.workers.values()}
        cluster.sync(next(iter(cluster.workers.values())).close)

        def is_replaced() -> bool:
            workers.replace_lost()
            known = set(workers.client.scheduler_info(n_workers=-1)["workers"])
            return len(known) == 2 and known != before

        wait_for(is_replaced, 60, "another worker")
