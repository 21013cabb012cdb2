"""Ctrl-C and SIGTERM: the command ends within ten seconds, with nothing left running and nothing half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, overrides
from tests.flows.serving import REPOSITORY, executions, session
from tests.patience import patient, wait_for
from tests.prefect_database import prefect_home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("number", "runner"), [(signal.SIGINT, "threads"), (signal.SIGTERM, "processes")])
def test_a_signal_stops_the_build_and_all_it_started(
    number: signal.Signals, runner: str, drawn: dict[str, Path], tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "executions"
    with serving(FaultServer(hang=60)) as model:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}'}}"
        given = overrides(output, drawn, "shard_size=6", f"runner={runner}", step)
        command = [sys.executable, "-m", "tests.flows.logged_build", "build", "--config", CONFIG]
        command += [word for setting in given for word in ("--set", setting)]
        environment = os.environ | {"PREFECT_HOME": prefect_home(tmp_path / "prefect"), "EXECUTIONS": str(log)}
        # The first answers come; those after them would take a minute each.
        model.fault = lambda seed, attempt: "right" if len(model.seen) < 12 else "hang"

        process = subprocess.Popen(
            command,
            env=environment,
            cwd=REPOSITORY,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
            # As from a terminal, also where whatever runs the tests was told to ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_for(lambda: model.hanging > 0, 300, "requests that hang")
            began = time.monotonic()
            # As a terminal does: Ctrl-C goes to every process of the group, SIGTERM to the one that is asked.
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            _, errors = process.communicate(timeout=60)
            wait_for(lambda: not session(process.pid), 10, "no process of the build is left")
            took = time.monotonic() - began
        finally:
            for pid in session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert process.returncode == 130, errors
        assert "run the same command again" in errors
        assert took < patient(10), f"{took:.1f} s"
        assert not list(output.rglob("*.part"))

        before = executions(log)
        model.fault = lambda seed, attempt: "right"
        subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True)
    again = executions(log)[len(before) :]
    assert not {key for key in again if key.startswith(("index", "candidates", "sample", "object_caption"))}
    finished = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("end ")}
    assert set(before) - {"assemble-0"} <= finished


def test_a_signal_stops_a_model_of_torch_in_the_middle_of_an_answer(drawn: dict[str, Path], tmp_path: Path) -> None:
    """Its threads run on while the interpreter takes itself apart, which aborts a process that waits for that."""
    pytest.importorskip("torch", reason="the model is one of torch")
    from tests.tiny_models import build_tiny_llama

    roots = {"pascal_part116": drawn["pascal_part116"]}
    folder, errors = build_tiny_llama(tmp_path / "llama"), tmp_path / "stderr"
    for name in ("config.json", "tokenizer_config.json"):  # long enough for prompts and for answers without an end
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("1024", "9000"))
    step = f"generate={{backend: transformers, model: {folder}, max_tokens: 6000, batch_size: 8}}"
    command = [sys.executable, "-m", "talking_points", "build", "--config", CONFIG]
    command += [word for setting in overrides(tmp_path / "out", roots, "limit=8", step) for word in ("--set", setting)]
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command, env=os.environ | {"PREFECT_HOME": prefect_home(tmp_path / "prefect")}, cwd=tmp_path, stderr=stream
        )
        try:
            wait_for(lambda: b"Loading weights: 100%" in errors.read_bytes(), 300, "the model is loaded")
            time.sleep(2)
            assert process.poll() is None
            process.terminate()
            assert process.wait(60) == 130, errors.read_text()
        finally:
            process.kill()
    assert errors.read_text().splitlines()[-1].startswith("stopped; what is finished is kept"), errors.read_text()
