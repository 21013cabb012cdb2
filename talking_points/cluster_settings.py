"""The clusters that a configuration may have Dask start, and what it may say of them.

A configuration may come from somebody else, and much of this ends in a job script: in the line with which a shell
starts the worker, and in directives of which some name a command. So the settings, the options of directives and the
signs of a text are each of a fixed list; what a site needs beside them stands in Dask's own configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from talking_points.config import suggest
from talking_points.redaction import redact

_ANY_CLUSTER = {"n_workers", "name", "interface", "shutdown_on_close"}
_JOBS = _ANY_CLUSTER | {
    "account",
    "cores",
    "death_timeout",
    "job_directives_skip",
    "job_extra_directives",
    "job_name",
    "local_directory",
    "log_directory",
    "memory",
    "nanny",
    "processes",
    "protocol",
    "queue",
    "scheduler_options",
    "shared_temp_directory",
    "walltime",
}
CLUSTER_CLASSES: dict[str, tuple[str, set[str]]] = {
    "distributed.LocalCluster": (
        "distributed",
        _ANY_CLUSTER | {"host", "memory_limit", "processes", "protocol", "threads_per_worker", "local_directory"},
    ),
    "dask_jobqueue.SLURMCluster": ("dask_jobqueue", _JOBS | {"job_cpu", "job_mem"}),
    "dask_jobqueue.PBSCluster": ("dask_jobqueue", _JOBS | {"resource_spec"}),
    "dask_jobqueue.SGECluster": ("dask_jobqueue", _JOBS | {"resource_spec"}),
    "dask_jobqueue.LSFCluster": ("dask_jobqueue", _JOBS | {"ncpus", "mem", "lsf_units"}),
    "dask_jobqueue.HTCondorCluster": ("dask_jobqueue", _JOBS | {"disk"}),
    "dask_kubernetes.operator.KubeCluster": (
        "dask_kubernetes",
        _ANY_CLUSTER
        | {"namespace", "image", "resources", "resource_timeout", "idle_timeout", "scheduler_service_type"},
    ),
}
"""The cluster classes that a configuration may name: their package, and the settings that may be passed on."""

_SCHEDULER = {
    *("contact_address", "dashboard", "dashboard_address", "host", "idle_timeout", "interface", "port", "protocol"),
}
"""Of a scheduler beside the build; others import modules."""

_DIRECTIVES = {
    "SLURM": """-A --account -C --constraint -c --cpus-per-task -d --dependency -G --gpus -J --job-name
        -L --licenses -M --clusters -m --distribution -N --nodes -n --ntasks -p --partition -q --qos
        -t --time -w --nodelist -x --exclude -b --begin --comment --contiguous --core-spec --cpus-per-gpu --deadline
        --exclusive --gpu-bind --gpu-freq --gpus-per-node --gpus-per-task --gres --hint --mail-type --mail-user --mem
        --mem-bind --mem-per-cpu --mem-per-gpu --nice --no-requeue --ntasks-per-node --oversubscribe --priority
        --requeue --reservation --signal --sockets-per-node --switches --threads-per-core --tmp --wckey""",
    "PBS": "-A -a -j -k -l -M -m -N -P -p -q -R -r",
    "SGE": "-A -ar -binding -hard -j -js -l -M -m -N -P -p -pe -q -R -r -soft",
    "LSF": "-alloc_flags -app -B -C -G -g -gpu -J -Lp -M -m -N -n -nnodes -P -q -R -r -rn -sla -sp -U -u -W -We -x",
    "HTCondor": """accounting_group accounting_group_user concurrency_limits priority rank request_cpus request_disk
        request_gpus request_memory requirements require_gpus""",
}
"""Directives that say what a job takes, and where and when it may run: none names a command, a shell, a file or
variables of the environment.
"""
_ONE_WORD_OPTIONS = ("SGE", "LSF")
"""Whose options have several letters after one dash, so that no value is written without a blank."""

_COUNTS = {"n_workers": 0, "cores": 1, "processes": 1, "threads_per_worker": 1, "ncpus": 1, "job_cpu": 1}
MOST_WORKERS = 10_000
_AMOUNTS = {"memory", "memory_limit", "disk", "mem", "job_mem"}
"""What is read as a number of bytes, which may be written with a blank."""
_PLAIN = re.compile(r"(?!-)(?:[\w./:%+,=@~-]|\$\w+|\$\{\w+\})+")
_AMOUNT = re.compile(r"[0-9.]+ ?\w*")


def find_unfit(cluster_class: str, given: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings of a cluster class, in words; None where all of them may be passed on."""
    allowed = CLUSTER_CLASSES[cluster_class][1]
    beside = "all else belongs into Dask's own configuration (~/.config/dask)"
    for key in given:
        if key not in allowed:
            return (
                f"cluster_kwargs.{key}: of {cluster_class} only {', '.join(sorted(allowed))} can be set here"
                f"{suggest(key, sorted(allowed))}; {beside}"
            )
    if any(_breaks_line(value) for value in given.values()):
        return "cluster_kwargs: no text may hold a line break or another control character"
    for key, value in given.items():
        if key in _COUNTS and not _is_count(key, value):
            return f"cluster_kwargs.{key}: expected a whole number from {_COUNTS[key]} to {MOST_WORKERS:,}"
    if cluster_class == "distributed.LocalCluster":
        return None
    for key, value in given.items():
        if key == "job_extra_directives":
            if (refused := _unknown_directive(cluster_class, value)) is not None:
                return f"cluster_kwargs.{key}: '{refused}' cannot be set here; {beside}"
            continue
        if key == "scheduler_options" and not (isinstance(value, dict) and set(value) <= _SCHEDULER):
            return f"cluster_kwargs.{key}: expected a section of {', '.join(sorted(_SCHEDULER))}; {beside}"
        form = _AMOUNT if key in _AMOUNTS else _PLAIN
        for text in _texts(value):
            if key != "job_directives_skip" and not form.fullmatch(text):
                return (
                    f"cluster_kwargs.{key}: expected letters, digits and any of ./:%+,=@~-, or a variable as $NAME, "
                    f"found '{redact(text)[:80]}'; {beside}"
                )
    return None


def _is_count(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return key == "processes"
    return isinstance(value, int) and _COUNTS[key] <= value <= MOST_WORKERS


def _unknown_directive(cluster_class: str, value: Any) -> str | None:
    """The first directive that is of no known kind, as written."""
    system = cluster_class.rpartition(".")[2].removesuffix("Cluster")
    known = _DIRECTIVES[system].split()
    if system == "HTCondor":
        pairs = value if isinstance(value, dict) else {str(value): ""}
        return next((key for key in pairs if key.lower() not in known), None)
    for directive in value if isinstance(value, list) else [value]:
        # What quotes and backslashes hide from a reader they do not hide from a batch system.
        words = re.sub(r"[\"'\\]", "", str(directive)).split()
        if not words or not words[0].startswith("-"):
            return str(directive)
        for word in words:
            name = word.partition("=")[0]
            attached = system not in _ONE_WORD_OPTIONS and not word.startswith("--") and word[:2] in known
            if word.startswith("-") and name not in known and not attached:
                return str(directive)
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _breaks_line(value: Any) -> bool:
    """Whether a text in a value would end a line of a job script, after which the next one would be a command."""
    return any(not text.isprintable() for text in _texts(value))
