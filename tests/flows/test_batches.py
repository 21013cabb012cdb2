"""A build that sends requests as batches: the same bytes as one that asks at once, through a kill in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from talking_points.errors import RunError
from tests.batch_server import BatchServer, answer_line, serving_batches
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import build, data_digests

pytestmark = pytest.mark.usefixtures("orchestrator")

SMALL = ("limit=6", "shard_size=3")


def step(name: str, url: str, batch: str = "") -> str:
    further = f", batch: {batch}" if batch else ""
    return f"{name}={{backend: openai, model: {MODEL}, endpoint: '{url}'{further}}}"


@pytest.fixture(scope="module")
def direct(drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Data files of the build that asks one by one."""
    output = tmp_path_factory.mktemp("direct") / "out"
    with serving(FaultServer()) as server:
        build(output, drawn, *SMALL, step("local_caption", server.url))
    return data_digests(output)


def test_the_dataset_is_that_of_a_build_that_asks_at_once(
    drawn: dict[str, Path], tmp_path: Path, direct: dict[str, str]
) -> None:
    def all_but_one(number: int, lines: list[dict[str, Any]]) -> list[dict[str, Any] | bytes]:
        return [*reversed([answer_line(line) for line in (lines if number else lines[1:])])]

    with serving_batches(BatchServer(answers=all_but_one)) as server:
        server.released.clear()
        with pytest.raises(RunError, match="run the build again to collect"):
            build(tmp_path, drawn, *SMALL, step("local_caption", server.url, "{wait: false, poll: 0.05}"))
        server.released.set()
        result = build(tmp_path, drawn, *SMALL, step("local_caption", server.url, "{poll: 0.05}"))
    assert data_digests(tmp_path) == direct
    assert [len(server.lines(batch)) for batch in server.batches.values()] == [6, 1], "the second chance"
    assert result["rejected"] == 0


@pytest.mark.slow
def test_a_build_killed_while_it_waits_collects_and_submits_nothing_twice(
    drawn: dict[str, Path], tmp_path: Path, direct: dict[str, str]
) -> None:
    from prefect.settings import PREFECT_API_URL

    with serving_batches(BatchServer()) as server:
        server.released.clear()
        given = (*SMALL, step("local_caption", server.url, "{poll: 0.05}"))
        code = "import json, sys; from tests.flows.building import build; from pathlib import Path\n"
        code += "output, drawn, given = json.loads(sys.argv[1])\n"
        code += "build(output, {name: Path(root) for name, root in drawn.items()}, *given)"
        values = json.dumps([str(tmp_path), {name: str(root) for name, root in drawn.items()}, given])
        environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
        with subprocess.Popen([sys.executable, "-c", code, values], env=environment) as child:
            deadline = time.monotonic() + 120
            while not any("batch-" in call for call in server.calls) and time.monotonic() < deadline:
                assert child.poll() is None, "the build ended early"
                time.sleep(0.05)
            os.kill(child.pid, signal.SIGKILL)
        # What was submitted is collected by a run that does not wait, too.
        server.released.set()
        build(tmp_path, drawn, *given)
    assert len(server.asked()) == len(set(server.asked())), "nothing was submitted twice"
    assert data_digests(tmp_path) == direct
