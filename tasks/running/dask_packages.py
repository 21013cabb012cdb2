"""What is installed where a cluster of Dask runs, asked in Dask's own words.

Nothing of this project is sent for it: a scheduler or a worker that does not have the project cannot read that, and
ends of it without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from talking_points.extras import how_to_install
from tasks.running.runner_checks import ANSWERS
from tasks.running.worker_checks import CARRIERS, PACKAGES, Expectation, other_python, other_versions

_OURS = PACKAGES[0]
_OF_THE_SCHEDULER = (_OURS, "prefect", *CARRIERS["dask"])
"""Packages whose objects the scheduler reads; what rows depend on is none of its concern."""


def called(address: str, worker: Mapping[str, Any]) -> str:
    """How a worker is called in messages: by the name that it was started with, as in ``talking-points status``."""
    name = str(worker.get("name", address))
    return f"worker {address}" if name == address else f"worker {name} ({address})"


def find_other_packages(
    client: Any, known: Mapping[str, Mapping[str, Any]], expected: Expectation
) -> dict[str, Sequence[str]]:
    """What differs from the build at the scheduler and the ``known`` workers, by who; those that fit, or do not answer
    within ``ANSWERS`` seconds, are left out.
    """
    packages = list(expected.packages)
    found = {}
    scheduler, workers = client.sync(_ask, client.scheduler, list(known), packages)
    if scheduler is not None:
        found["scheduler"] = _differences(scheduler, expected, _OF_THE_SCHEDULER)
    for address, installed in workers.items():
        found[called(address, known[address])] = _differences(installed, expected, packages)
    return {who: differences for who, differences in found.items() if differences}


async def _ask(scheduler: Any, addresses: Sequence[str], packages: list[str]) -> tuple[Any, dict[str, Any]]:
    async def ask(question: Any) -> Any:
        with suppress(TimeoutError, asyncio.TimeoutError, OSError):
            return await asyncio.wait_for(question, 2 * ANSWERS)
        return None

    async def ask_worker(address: str) -> Any:
        message = {"op": "versions", "packages": packages}
        return await ask(scheduler.broadcast(msg=message, workers=[address], on_error="ignore"))

    own, *answers = await asyncio.gather(ask(scheduler.versions(packages=packages)), *map(ask_worker, addresses))
    return own, {address: found for answer in answers for address, found in (answer or {}).items()}


def _differences(installed: Mapping[str, Any], expected: Expectation, packages: Sequence[str]) -> list[str]:
    own = installed["packages"]
    if own.get(_OURS) is None:
        return [f"the package '{_OURS}' is not installed; {how_to_install('dask')}"]
    wanted = {name: version for name, version in expected.packages.items() if name in packages}
    return [*other_python(".".join(own["python"].split(".")[:2]), expected), *other_versions(own, wanted)]
