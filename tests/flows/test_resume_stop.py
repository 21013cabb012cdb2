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
import torch
from transformers import LlamaForCausalLM

from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, overrides
from tests.flows.serving import REPOSITORY, executions, session, wait_for
from tests.tiny_models import build_tiny_tokenizer, tiny_text_config

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
        environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "EXECUTIONS": str(log)}
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
        assert took < 10, f"{took:.1f} s"
        assert not list(output.rglob("*.part"))

        before = executions(log)
        model.fault = lambda seed, attempt: "right"
        subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True)
    again = executions(log)[len(before) :]
    assert not {key for key in again if key.startswith(("index", "candidates", "sample", "object_caption"))}
    finished = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("end ")}
    assert set(before) - {"assemble-0"} <= finished


def build_endless_llama(folder: Path) -> None:
    """A text model that never ends its answer: thousands of tokens for every row."""
    torch.manual_seed(0)
    tokenizer = build_tiny_tokenizer()
    tokenizer.model_max_length = 16_000
    config = tiny_text_config(tokenizer)
    config.max_position_embeddings, config.num_hidden_layers = 16_000, 6
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
        model.lm_head.weight[10] = 1.0 + model.lm_head.weight[10]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_sigterm_in_the_middle_of_a_torch_generation_ends_as_documented(drawn: dict[str, Path], tmp_path: Path) -> None:
    build_endless_llama(tmp_path / "llama")
    log = tmp_path / "executions"
    step = f"generate={{backend: transformers, model: {tmp_path / 'llama'}, max_tokens: 12000, batch_size: 2}}"
    given = overrides(tmp_path / "out", drawn, "shard_size=6", "limit=6", "runner=threads", step)
    command = [sys.executable, "-m", "tests.flows.logged_build", "build", "--config", CONFIG]
    command += [word for setting in given for word in ("--set", setting)]
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "EXECUTIONS": str(log)}
    process = subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: any(key.startswith("generate") for key in executions(log)), 300, "texts are generated")
        time.sleep(6)  # the model is loaded, and writes
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        took = time.monotonic() - began
        wait_for(lambda: not session(process.pid), 10, "no process of the build is left")
    finally:
        for pid in session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert "terminate called" not in errors
    assert "Traceback" not in errors
    assert took < 30, f"{took:.1f} s"
