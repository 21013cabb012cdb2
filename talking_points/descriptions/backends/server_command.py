"""How the server of a model is started: the command, its environment, and what to install where it is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.redaction import is_secret_name

ENVIRONMENTS = {"vllm_server": "build/env-vllm", "llama_server": "build/env-llama-cpp"}
"""Where ``make vllm-env`` and ``make llama-env`` put them, relative to the working folder."""

VLLM_OPTIONS: Mapping[str, Any] = {
    "enable_prefix_caching": True,
    "limit_mm_per_prompt": {"image": 1},
    # With free white space a weak model may fill its whole answer with it.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
"""Engine options of vLLM, in process and as a server; ``.options`` of a step goes before them."""

_SERVED_VLLM: Mapping[str, Any] = {
    **VLLM_OPTIONS,
    "generation_config": "vllm",  # no penalties or cuts of the distribution that a model's files ask for
    "disable_uvicorn_access_log": True,
}
_LLAMA_OPTIONS: Mapping[str, Any] = {"n_ctx": 4096, "n_gpu_layers": -1}
_LLAMA_SERVER_FLAGS = {"n_ctx": "ctx-size", "n_gpu_layers": "n-gpu-layers", "n_threads": "threads"}
"""What llama.cpp's own server calls the options of llama-cpp-python's; any other goes by its name."""
_KEPT_SECRETS = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"}
"""A server may have to download a gated model; no other secret of this process reaches it."""
_NOT_INHERITED = ("PREFECT_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TALKING_POINTS_")


def missing_server(step: StepConfig) -> str | None:
    """Why a step's server cannot be started, with what to make or set; None where its program is there."""
    try:
        _program(step)
    except BackendUnavailable as error:
        return str(error)
    return None


def server_command(step: StepConfig, host: str, port: int, name: str) -> list[str]:
    """The words that start the server of a step. Raises ``BackendUnavailable`` where its program is not there.

    ``name`` is a unique name for a container. ``step.options`` are the engine's; a command of the configuration has
    its own, and ``{model}``, ``{revision}``, ``{host}``, ``{port}`` and ``{name}`` in it are replaced.
    """
    if step.server.command:
        values = {"model": step.model, "revision": step.revision or "main", "host": host, "port": port, "name": name}
        return [_filled(word, values) for word in step.server.command]
    program, kind = _program(step), step.backend
    model, address = str(step.model), ["--host", host, "--port", str(port)]
    if kind == "vllm_server":
        options = {**_SERVED_VLLM, "dtype": step.dtype, "revision": step.revision, "seed": 0, **step.options}
        serve = [*program, model] if program[-1] == "serve" else [*program, "--model", model]
        return [*serve, *address, "--served-model-name", model, *_flags(options)]
    options = {**_LLAMA_OPTIONS, **{key: value for key, value in step.options.items() if key != "filename"}}
    if is_llama_cpp_python(program):
        options = {key: str(value) if isinstance(value, bool) else value for key, value in options.items()}
        return [*program, "--model", model, *address, "--model_alias", model, *_flags(options, underscores=True)]
    named = {_LLAMA_SERVER_FLAGS.get(key, key): value for key, value in options.items() if value != -1}
    return [*program, "--model", model, *address, "--alias", model, *_flags(named)]


def is_llama_cpp_python(program: list[str]) -> bool:
    """Whether this is the server of llama-cpp-python, whose options and JSON schemas go by other names."""
    return "llama_cpp.server" in program


def wants_schema_as(step: StepConfig) -> str:
    """How the server of a step is asked for structured answers (``options.schema_as`` of the backend ``openai``)."""
    if step.backend == "llama_server" and not step.server.command and is_llama_cpp_python(_program(step)):
        return "json_object"
    return "json_schema"


def server_environment(step: StepConfig, key: str) -> dict[str, str]:
    """The variables of a server: those of this process without its secrets, and the key that requests must carry."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_INHERITED) and (name in _KEPT_SECRETS or not is_secret_name(name))
    }
    # The key goes by a variable, not on the command line, which every user of the machine can read.
    keys = dict.fromkeys(("VLLM_API_KEY", "LLAMA_API_KEY", "API_KEY"), key)
    return {**kept, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **step.server.variables, **keys}


def _program(step: StepConfig) -> list[str]:
    """The program of a step's server with the words that come before its arguments."""
    if os.name != "posix":
        raise BackendUnavailable(
            f"backend {step.backend}: expected Linux or macOS, where a build can end the server that it started, found "
            "Windows: run this in WSL, or start the server yourself and take the backend 'openai'"
        )
    if step.server.command:
        word = step.server.command[0]
        if shutil.which(word) is None:
            raise BackendUnavailable(f"server.command: there is no program '{word}' here; install it, or correct it")
        return [word]
    place = Path(step.server.environment or ENVIRONMENTS[step.backend]).expanduser().absolute()
    vllm = step.backend == "vllm_server"
    if place.is_file():
        if not os.access(place, os.X_OK):
            raise BackendUnavailable(f"server.environment: {place} is no program that this user may run")
        return [str(place), "serve"] if vllm else [str(place)]
    python = place / "bin" / "python"
    if python.exists():
        if not vllm and (place / "bin" / "llama-server").exists():
            return [str(place / "bin" / "llama-server")]
        module = "vllm.entrypoints.openai.api_server" if vllm else "llama_cpp.server"
        return [str(python), "-m", module]
    if not vllm and step.server.environment is None:
        if shutil.which("llama-server"):
            return ["llama-server"]
        if util.find_spec("llama_cpp") and util.find_spec("uvicorn"):
            return [sys.executable, "-m", "llama_cpp.server"]
    raise BackendUnavailable(
        f"server.environment: expected a virtual environment with {'vLLM' if vllm else 'llama.cpp'} or a program at "
        f"{place}, found {'no bin/python in it' if place.is_dir() else 'nothing'}: make it with "
        f"'make {'vllm' if vllm else 'llama'}-env', or set server.environment to yours, or server.command to that of "
        "a container"
    )


def _filled(word: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word


def _flags(options: Mapping[str, Any], *, underscores: bool = False) -> list[str]:
    """Options as arguments: true is a flag, false its negation, a mapping JSON; those without a value are left out."""
    words: list[str] = []
    for key, value in options.items():
        name = key if underscores else key.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return words
