"""A configuration names no module and no command: nothing of it reaches the shell of a job."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.runner_config import RunnerConfig

COMMAND = "x; touch /tmp/mark #"


def runner(system: str, **given: Any) -> RunnerConfig:
    return RunnerConfig(kind="dask", cluster_class=f"dask_jobqueue.{system}Cluster", cluster_kwargs=given)


@pytest.mark.parametrize(
    ("system", "given"),
    [
        *(
            ("SLURM", {key: COMMAND})
            for key in ("local_directory", "interface", "death_timeout", "name", "queue", "account", "walltime")
        ),
        ("SLURM", {"local_directory": "$(touch)"}),
        ("SLURM", {"local_directory": "`touch`"}),
        ("SLURM", {"local_directory": "--preload=http://there/x.py"}),
        ("SLURM", {"local_directory": ""}),
        ("SLURM", {"memory": "2GB; touch x"}),
        ("SLURM", {"scheduler_options": {"preload": ["http://there/x.py"]}}),
        ("SLURM", {"scheduler_options": {"host": COMMAND}}),
        ("SLURM", {"scheduler_options": "preload"}),
        ("SLURM", {"job_extra_directives": ["--export=ALL,BASH_ENV=/tmp/x"]}),
        ("SLURM", {"job_extra_directives": ["--gres=gpu:1 --expor=BASH_ENV=/tmp/x"]}),
        ("SLURM", {"job_extra_directives": ["--gres=gpu:1\n touch x"]}),
        ("SLURM", {"job_extra_directives": ["-D/tmp"]}),
        ("SLURM", {"job_extra_directives": ["touch x"]}),
        ("PBS", {"job_extra_directives": ["-S /tmp/shell"]}),
        ("PBS", {"job_extra_directives": ["-q gpu -W stagein=.profile@there:/tmp/x"]}),
        ("SGE", {"resource_spec": "h_vmem=1G -S /tmp/shell"}),
        ("SGE", {"job_extra_directives": ["-jsv /tmp/x"]}),
        ("LSF", {"job_extra_directives": ["-E touch"]}),
        ("LSF", {"job_extra_directives": ['-q gpu "-E" touch']}),
        ("HTCondor", {"job_extra_directives": {"Executable": "/tmp/x"}}),
        ("HTCondor", {"job_extra_directives": {"+PreCmd": "x"}}),
        ("SLURM", {"n_workers": -3}),
        ("SLURM", {"n_workers": 1e9}),
        ("SLURM", {"cores": "many"}),
        ("SLURM", {"cores": True}),
    ],
)
def test_what_could_run_a_command_is_refused(system: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"cluster_kwargs"):
        runner(system, **given)


@pytest.mark.parametrize(
    ("system", "given"),
    [
        ("SLURM", {"job_extra_directives": ["--gres=gpu:a100:1", "-C a100|h100", "-N1", "--exclusive"]}),
        ("SLURM", {"local_directory": "/scratch/$USER/dask", "log_directory": "~/logs/%j", "memory": "32 GB"}),
        ("SLURM", {"walltime": "1-00:00:00", "processes": 1, "job_cpu": 4, "job_mem": "32G", "nanny": False}),
        ("SLURM", {"scheduler_options": {"dashboard_address": ":0", "interface": "ib0", "port": 8786}}),
        ("SLURM", {"job_directives_skip": ["-n 1"], "death_timeout": 120}),
        ("PBS", {"resource_spec": "select=1:ncpus=4:mem=8GB", "job_extra_directives": ["-lplace=excl", "-q gpu"]}),
        ("SGE", {"resource_spec": "h_vmem=8G,gpu=1", "job_extra_directives": ["-pe smp 4"]}),
        ("LSF", {"job_extra_directives": ['-R "select[type==any] rusage[mem=4]"', "-gpu num=1"], "mem": 10**9}),
        ("HTCondor", {"disk": "1 GB", "job_extra_directives": {"request_gpus": 1, "Requirements": "(x == 1)"}}),
    ],
)
def test_what_sites_set_is_passed_on(system: str, given: dict[str, Any]) -> None:
    assert runner(system, **given).cluster_kwargs == given


@pytest.mark.parametrize("name", ["A=1; touch x #", "A,B", "a b", "--preload x", "", "GPU\n", "Ä"])
def test_a_resource_is_a_name(name: str) -> None:
    """It stands on the command line of a worker that is started."""
    with pytest.raises(ValidationError, match="a resource is called like"):
        RunnerConfig(kind="dask", resources={"local_caption": {name: 1}})


def test_names_of_resources() -> None:
    RunnerConfig(kind="ray", resources={"local_caption": {"accelerator_type:A100": 0.1, "node:10.0.0.1": 1, "GPU": 1}})


@pytest.mark.parametrize("settings", [{"workers": 10**9}, {"retries_of_lost_workers": 10**30}])
def test_numbers_have_an_end(settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="less than or equal"):
        RunnerConfig(kind="dask", **settings)


@pytest.mark.parametrize("address", ["tcp://host:٣٣٣", f"tcp://{'x' * 300}:1", "http://host:1", "tcp://me:pass@host:1"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValidationError, match="expected the form"):
        RunnerConfig(kind="dask", address=address)


@pytest.mark.parametrize(
    "setting",
    [
        "runner={kind: dask, address: 'user:s3cretword@127.0.0.1:8786'}",
        "runner={kind: ray, address: 'ray://user:s3cretword@head.example:10001'}",
        "request_cache=mysql://user:s3cretword@127.0.0.1/answers",
        "runner={kind: dask, cluster_class: dask_jobqueue.PBSCluster, cluster_kwargs: {queue: 'u:s3cretword@h.x y'}}",
    ],
)
def test_of_a_password_nothing_is_shown(setting: str) -> None:
    """Neither a piece, where a long value is cut."""
    with pytest.raises(ConfigError) as refused:
        load_config(BuildConfig, None, ["output=x", setting])
    assert "s3" not in str(refused.value)
