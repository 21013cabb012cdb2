"""``talking-points doctor``: is everything here that a build needs, and which extras could be used."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from rich.table import Table

from commands.orchestrator import PASSWORD, find_configured_server
from talking_points.config import ConfigError
from talking_points.extras import how_to_install
from talking_points.redacted_console import RedactedConsole
from talking_points.redaction import guard_process
from talking_points.units import format_size

_REQUIRED = {
    "cv2": "apt-get install -y libgl1 libglib2.0-0   (opencv-contrib-python needs them)",
    "pycocotools.mask": "pip install pycocotools",
    "pyarrow.parquet": "pip install pyarrow",
    "datasets": "pip install datasets",
    "prefect": "pip install prefect",
}
_EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "nicegui": "audit",
    "llama_cpp": "llama-cpp",
    "prefect_dask": "dask",
    "prefect_ray": "ray",
}

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")

_USED_BY = {
    "train": "for training and models of one's own",
    "audit": "for view and audit",
    "llama-cpp": "for GGUF files",
    "dask": "for workers on other machines",
    "ray": "for workers in a cluster of Ray",
}
"""What an extra is for."""


def examine() -> bool:
    """Print a table of findings; True when a build can run."""
    guard_process()
    table = Table(title=f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for column in ("item", "found", "what to do"):
        table.add_column(column)
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    table.add_row("Python", platform.python_version(), "" if good else "install Python 3.11, 3.12 or 3.13")
    for module, remedy in _REQUIRED.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            good = False
            table.add_row(module, f"missing: {error}", remedy)
        else:
            table.add_row(module, _version(module), "")
    for module, extra in _EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        remedy = "" if found else f"optional: extra '{extra}', {_USED_BY[extra]}"
        table.add_row(module, _version(module) if found else "not installed", remedy)
    vllm = importlib.util.find_spec("vllm") is not None
    table.add_row(
        "vllm", _version("vllm") if vllm else "not installed", "" if vllm else f"optional: {how_to_install('vllm')}"
    )
    table.add_row("GPU", *_gpu())
    table.add_row("Hub login", *_hub_login())
    table.add_row("Prefect server", *_prefect_server())
    table.add_row("free disk", format_size(shutil.disk_usage(Path.cwd()).free), "")
    RedactedConsole().print(table)
    return good


def _gpu() -> tuple[str, str]:
    """The CUDA GPUs that torch sees, or that the driver does where torch cannot say; and what follows."""
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
            return ", ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards), ""
    if shutil.which("nvidia-smi"):
        return "not seen by torch", "optional: a torch with CUDA, from pytorch.org"
    return "none", "optional: builds with the backend 'rules' and tiny models need none"


def _hub_login() -> tuple[str, str]:
    """Whether there is a token for the Hugging Face Hub, and whether it looks like one. It is shown to nobody."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return "not known", "pip install huggingface_hub"
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        return "none", "optional: 'hf auth login' or HF_TOKEN, to publish and for datasets that are not public"
    where = "in HF_TOKEN" if os.environ.get("HF_TOKEN") else "of 'hf auth login'"
    if not _TOKEN.fullmatch(token):
        return f"{where}, malformed", "expected hf_ and letters and digits: copy it anew from the Hub's settings"
    return f"{where}, well-formed", ""


def _prefect_server() -> tuple[str, str]:
    """The server that commands would report to, whether it answers, and whether to the password that is set."""
    try:
        url = find_configured_server()
    except ConfigError as error:
        return "not usable", str(error)
    except OSError as error:
        return "not known", f"the profile cannot be read: {error}"
    if url is None:
        return "none set", "every command starts its own; 'talking-points server' starts one with a UI"
    password = "password set" if PASSWORD in os.environ else "no password"
    return f"{url} answers, {password}", ""


def _version(module: str) -> str:
    packages = metadata.packages_distributions().get(module.split(".")[0], [])
    return metadata.version(packages[0]) if packages else "present"
