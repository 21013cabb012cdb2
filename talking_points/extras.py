"""How an optional part of this project is installed on this machine: it is on no package index."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

_VLLM_APART = (
    "it has an environment of its own (Prefect needs another FastAPI): 'make vllm-env' makes it, and the backend "
    "'vllm_server' starts its server there"
)


def how_to_install(extra: str) -> str:
    """How to add an extra of ``pyproject.toml`` to where this package is installed; vLLM is none, and goes apart."""
    if extra == "vllm":
        return _VLLM_APART
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"in {checkout}: pip install -c requirements.lock -e '.[{extra}]'"
    wheel = f"talking_points-{metadata.version('talking-points')}-py3-none-any.whl"
    return f"where its wheel lies: pip install './{wheel}[{extra}]'"
