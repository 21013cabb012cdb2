"""Two builds of one output in a bucket, each a command as on a machine of its own: the second waits its turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.running import lease
from tasks.running.storage import Storage
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, build, data_digests, overrides
from tests.flows.serving import REPOSITORY
from tests.flows.test_object_store import stored_digests
from tests.object_store import bucket
from tests.patience import wait_for
from tests.prefect_database import prefect_home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("orchestrator")]

SHARDS = ("limit=12", "shard_size=4")
QUICKLY = 0.2
"""A second of a lease, to the builds of this test."""
MACHINE = """
import sys
from dataclasses import replace
from tasks.running import lease

machine, quickly = sys.argv.pop(1), float(sys.argv.pop(1))
real = lease.this_process
lease.this_process = lambda: replace(real(), machine=machine, boot=machine)
lease.BEAT, lease.EXPIRES = lease.BEAT * quickly, lease.EXPIRES * quickly
from commands.cli import main
from tests.prefect_database import prefect_home
main()
"""
"""The command line on a machine of another name, which was started at another time."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    with bucket(tmp_path.name) as url:
        yield url


def test_a_second_machine_is_refused_and_takes_over_when_the_first_is_dead(
    folder: str, drawn: dict[str, Path], tmp_path: Path
) -> None:
    assert lease.EXPIRES + 1.5 * lease.BEAT < 60
    output = f"{folder}/out"

    def driver(machine: str, user: str, model: FaultServer) -> subprocess.Popen[str]:
        (tmp_path / machine).mkdir(exist_ok=True)
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', concurrency: 1}}"
        settings = [word for one in overrides(output, drawn, *SHARDS, step) for word in ("--set", one)]
        own = {"TMPDIR": "tmp", "HOME": "home", "PREFECT_HOME": "prefect", "XDG_CACHE_HOME": "cache"}
        places = {name: str(tmp_path / machine / place) for name, place in own.items()}
        for place in places.values():
            Path(place).mkdir(exist_ok=True)
        prefect_home(Path(places["PREFECT_HOME"]))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
        return subprocess.Popen(
            [sys.executable, "-c", MACHINE, machine, str(QUICKLY), "build", "--config", CONFIG, *settings],
            cwd=REPOSITORY,
            env=environment | places | {"LOGNAME": user, "USER": user},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    with serving(FaultServer(delay=1.0)) as slow, serving(FaultServer()) as model:
        first = driver("north", "ann", slow)
        try:
            wait_for(lambda: len(slow.seen) > 2 or first.poll() is not None, 240, "requests of the first")
            assert first.poll() is None, first.communicate()
            second = driver("south", "bob", model)
            _, said = second.communicate(timeout=120)
            assert second.returncode == 2, said
            assert f"another build is writing to {output} (process {first.pid} of ann on north, since" in said
            assert first.poll() is None
        finally:
            first.send_signal(signal.SIGKILL)
            first.communicate(timeout=60)
        time.sleep(QUICKLY * lease.EXPIRES)
        third = driver("south", "bob", model)
        _, said = third.communicate(timeout=240)
        assert third.returncode == 0, said
        held = lease.read_lease(Storage(output))
        assert held is not None
        assert (held.state, held.takeovers, held.owner.machine) == ("released", 1, "south")

        build(
            tmp_path / "alone",
            drawn,
            *SHARDS,
            f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}'}}",
        )
        assert stored_digests(output) == data_digests(tmp_path / "alone")
