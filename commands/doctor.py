"""``talking-points doctor``: is everything here that a build needs, and which extras could be used."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from talking_points.extras import how_to_install

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
}

_USED_BY = {
    "train": "for training and models of one's own",
    "audit": "for view and audit",
    "llama-cpp": "for GGUF files",
    "dask": "for workers on other machines",
}
"""What an extra is for."""


def examine() -> bool:
    """Print a table of findings; True when a build can run."""
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
    table.add_row("free disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB", "")
    Console().print(table)
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


def _version(module: str) -> str:
    packages = metadata.packages_distributions().get(module.split(".")[0], [])
    return metadata.version(packages[0]) if packages else "present"
