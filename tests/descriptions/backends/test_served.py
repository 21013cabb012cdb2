"""Servers that a build starts itself: real processes that speak the protocol, and everything that goes wrong."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talking_points.build_config import BuildConfig, StepConfig, dataset_settings
from talking_points.config import ConfigError, fingerprint, load_config
from talking_points.descriptions.asking import ask, release_backend, share_backend
from talking_points.descriptions.backends import check_capabilities, open_backend
from talking_points.descriptions.backends.protocol import BackendUnavailable, Completion, RequestError
from talking_points.descriptions.backends.server_command import server_command, server_environment
from talking_points.descriptions.request_cache import RequestCache
from talking_points.stop_requests import Stopped, clear_stop, request_stop
from tests.descriptions.backends.contract import text_request, texts

ROOT = Path(__file__).resolve().parents[3]
MODEL = "org/tiny-model"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as an executable."""
    path = tmp_path_factory.mktemp("bin") / "vllm"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -P -S {ROOT / "talking_points" / "stand_in_server.py"} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def step(program: Path) -> Callable[..., StepConfig]:
    """A step with the stand-in as its server; ``fault`` is what goes wrong."""

    def make(fault: str = "", backend: str = "vllm_server", pids: Path | None = None, **server: Any) -> StepConfig:
        variables = {"STANDIN": fault} | ({"PIDS": str(pids)} if pids else {})
        settings = {"environment": str(program), "startup_seconds": 20, "variables": variables} | server
        return StepConfig.model_validate({"backend": backend, "model": MODEL, "server": settings})

    return make


def gone(pid: int) -> bool:
    """Whether no such process runs; one that ended and was not waited for does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("backend", ["vllm_server", "llama_server"])
def test_a_server_is_started_asked_and_ended_with_all_that_it_started(step, tmp_path, backend):
    pids = tmp_path / "pids"
    served = open_backend(step(backend=backend, pids=pids), tmp_path / "logs")
    try:
        answers = texts(served.complete([text_request(f"about {name}") for name in ("cats", "dogs")]))
        assert answers == ["An answer about cats", "An answer about dogs"]
        identity = {"backend": backend, "model": MODEL, "revision": "", "engine": "0.0.stand-in"}
        assert served.identity == identity
        log = (tmp_path / "logs" / f"{backend}-org-tiny-model.log").read_text()
        assert "pid" in log
    finally:
        served.close()
    assert all(gone(pid) for pid in json.loads(pids.read_text()))
    with pytest.raises(BackendUnavailable, match="was ended"):
        served.complete([text_request("late")])


def test_a_server_killed_in_the_middle_comes_back_and_only_lost_requests_are_repeated(step, tmp_path):
    crashed, pids = tmp_path / "crashed", tmp_path / "pids"
    config = step(f"crash-once={crashed}", pids=pids)
    requests = [text_request(f"about {name}") for name in ("cats", "dogs", "fragile-glass", "mice", "owls")]
    with RequestCache(tmp_path / "cache.sqlite") as cache:
        with share_backend("generate", config, tmp_path) as backend:
            first = ask(backend, requests[:2], config, cache)
            rest = ask(backend, requests, config, cache)
        assert crashed.exists()
        assert [rest[request.id].text for request in requests] == [
            f"An answer about {request.prompt.split()[-1]}" for request in requests
        ]
        assert first[requests[0].id].text == rest[requests[0].id].text
        # A kill from outside, while several threads ask.
        with share_backend("generate", config, tmp_path) as backend:
            server = json.loads(pids.read_text())[0]
            os.kill(server, signal.SIGKILL)
            found: list[Any] = []
            threads = [
                threading.Thread(target=lambda n=n: found.extend(backend.complete([text_request(f"thread {n}")])))
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert sorted(texts(found)) == [f"An answer about {n}" for n in range(4)]
            assert json.loads(pids.read_text())[0] != server
    release_backend()
    assert all(gone(pid) for pid in json.loads(pids.read_text()))


def test_a_server_that_closes_its_port_before_it_ends_is_waited_for_and_started_again(step, tmp_path):
    """As vLLM does when its engine has died."""
    served = open_backend(step(f"linger-once={tmp_path / 'lingered'}"), tmp_path)
    try:
        assert texts(served.complete([text_request("about fragile-glass")])) == ["An answer about fragile-glass"]
    finally:
        served.close()


def test_a_request_that_kills_the_server_twice_is_an_error_of_its_row(step, tmp_path):
    served = open_backend(step(restarts=3), tmp_path)
    try:
        good, poison = text_request("about cats"), text_request("POISON")
        poisoned = served.complete([poison])[0]
        assert isinstance(poisoned, RequestError)
        assert poisoned.reason == "server_crashed"
        assert isinstance(served.complete([good])[0], Completion)
    finally:
        served.close()


def test_a_server_that_crashes_too_often_ends_the_build_with_its_log(step, tmp_path):
    served = open_backend(step(restarts=0), tmp_path)
    try:
        with pytest.raises(BackendUnavailable, match=r"crashed 1 times.*restarts: 0(?s:.*)engine core died"):
            served.complete([text_request("POISON")])
    finally:
        served.close()


@pytest.mark.parametrize(
    ("fault", "server", "message"),
    [
        ("dies", {}, r"ended \(exit code 1\) before it was ready(?s:.*)this is the last line"),
        (
            "dies-at-length",
            {},
            r"errors in its log .*\n  ModuleNotFoundError: No module named 'torchvision'; the (?s:.*)this is the last",
        ),
        ("never", {"startup_seconds": 1.0}, r"not ready after 1 s(?s:.*)stand-in of org/tiny-model"),
        ("other-model", {}, r"does not serve 'org/tiny-model': it lists somebody/else(?s:.*)\.log"),
        ("open", {}, "answers without the key"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_with_its_log_and_ended(step, tmp_path, fault, server, message):
    pids = tmp_path / "pids"
    with pytest.raises(BackendUnavailable, match=message):
        open_backend(step(fault, pids=pids, **server), tmp_path)
    assert all(gone(pid) for pid in json.loads(pids.read_text()))


def test_a_taken_port_is_left_for_another(step, tmp_path):
    served = open_backend(step(f"taken={tmp_path / 'taken'}"), tmp_path)
    assert "already in use" in next(tmp_path.glob("*.log")).read_text()
    served.close()


def test_no_key_reaches_the_log_or_an_error_and_no_secret_the_server(step, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of-somebody-else")
    monkeypatch.setenv("HF_TOKEN", "hf_for_gated_models_1")
    environment = server_environment(step(), "the-key-of-this-server")
    assert "OPENAI_API_KEY" not in environment
    assert environment["HF_TOKEN"] == "hf_for_gated_models_1"
    assert "the-key-of-this-server" not in " ".join(server_command(step(), "127.0.0.1", 1, "name"))
    with pytest.raises(BackendUnavailable) as caught:
        open_backend(step("prints-key"), tmp_path)
    log = next(tmp_path.glob("*.log")).read_text()
    assert "api_key=*** and ***" in log
    assert "api_key=*** and ***" in str(caught.value)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_never_outlives_its_build(step, tmp_path, how):
    pids, settings = tmp_path / "pids", tmp_path / "step.json"
    settings.write_text(step(pids=pids).model_dump_json())
    code = (
        "import sys, time, pathlib\n"
        "from talking_points.build_config import StepConfig\n"
        "from talking_points.descriptions.backends import open_backend\n"
        f"step = StepConfig.model_validate_json(pathlib.Path({str(settings)!r}).read_text())\n"
        f"backend = open_backend(step, pathlib.Path({str(tmp_path)!r}))\n"
        "print('open', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "open\n"
        running = json.loads(pids.read_text())
        assert not any(gone(pid) for pid in running)
        build.send_signal(how)
        build.wait(10)
    assert wait_until(lambda: all(gone(pid) for pid in running))


def test_a_stop_is_heard_while_the_server_loads(step, tmp_path):
    clear_stop()
    pids = tmp_path / "pids"

    def stop_when_it_loads() -> None:
        wait_until(pids.exists)
        request_stop()

    threading.Thread(target=stop_when_it_loads).start()
    try:
        with pytest.raises(Stopped):
            open_backend(step("never", pids=pids), tmp_path)
    finally:
        clear_stop()
    assert all(gone(pid) for pid in json.loads(pids.read_text()))


def test_options_become_the_arguments_of_each_kind_of_server(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    server = {"environment": str(tmp_path / "venv")}
    options = {"quantization": "awq_marlin", "max_model_len": 4096, "enforce_eager": True}
    vllm = StepConfig.model_validate(
        {"backend": "vllm_server", "model": MODEL, "revision": "abc", "options": options, "server": server}
    )
    words = server_command(vllm, "127.0.0.1", 8123, "name")
    assert words[:5] == [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL]
    line = " ".join(words)
    for part in ("--port 8123", "--revision abc", "--served-model-name org/tiny-model", "--max-model-len 4096"):
        assert part in line
    for part in ("--quantization awq_marlin", "--enforce-eager", "--enable-prefix-caching", "--generation-config vllm"):
        assert part in line
    llama = StepConfig.model_validate(
        {"backend": "llama_server", "model": "m.gguf", "options": {"n_ctx": 512}, "server": server}
    )
    words = server_command(llama, "127.0.0.1", 8123, "name")
    assert words[1:3] == ["-m", "llama_cpp.server"]
    assert words[words.index("--n_ctx") + 1] == "512"
    program = tmp_path / "llama-server"
    program.touch(mode=0o755)
    own = llama.model_copy(
        update={
            "options": {"cache_prompt": False, "parallel": 1},
            "server": llama.server.model_copy(update={"environment": str(program)}),
        }
    )
    assert "--no-cache-prompt --parallel 1" in " ".join(server_command(own, "127.0.0.1", 8123, "name"))
    container = vllm.model_copy(
        update={"server": vllm.server.model_copy(update={"command": ("docker", "{name}", "{model}:{port}")})}
    )
    assert server_command(container, "127.0.0.1", 8123, "box") == ["docker", "box", f"{MODEL}:8123"]


def test_what_is_missing_is_said_before_anything_starts_and_how_it_is_started_changes_no_row(step, tmp_path):
    nowhere = StepConfig.model_validate(
        {"backend": "vllm_server", "model": MODEL, "server": {"environment": str(tmp_path / "no")}}
    )
    (problem,) = check_capabilities("local_caption", nowhere)
    assert "make vllm-env" in problem
    assert "server.command" in problem
    assert any("takes none" in found for found in check_capabilities("local_caption", step(backend="llama_server")))

    def settings(**server: Any) -> str:
        config = step(**server)
        return fingerprint(dataset_settings(BuildConfig(output="x", generate=config)))

    assert settings() == settings(restarts=7, environment="/elsewhere")
    with pytest.raises(ConfigError, match="one server for all of its workers"):
        load_config(BuildConfig, None, [], output="x", runner="processes", generate=step())
    with pytest.raises(ValueError, match="starts none"):
        StepConfig.model_validate({"server": {"restarts": 1}})
