"""Quantized files for the backend ``transformers``: read once into float32, and in which numbers a CPU computes."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from talking_points.bfloat16 import computes_bfloat16
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.descriptions.model_identity import identify_model
from talking_points.extras import how_to_install
from talking_points.models.gguf_header import check_gguf
from talking_points.models.model_folders import check_files

CACHE = Path("~/.cache/talking-points/dequantized")


def number_format(dtype: str, device: str) -> str:
    """``dtype``, but float32 for "auto" on a CPU that has no instructions for bfloat16: emulated, it takes minutes."""
    return "float32" if dtype == "auto" and device == "cpu" and not computes_bfloat16() else dtype


def dequantized(path: Path) -> Path:
    """A folder with the weights of a GGUF file as float32, made on first use. Raises ``BackendUnavailable``."""
    if not path.is_file():
        raise BackendUnavailable(f"there is no file {path}: expected a GGUF file")
    if util.find_spec("gguf") is None:
        raise BackendUnavailable(f"reading {path.name} needs the package 'gguf': {how_to_install('train')}")
    check_gguf(path)
    check_files(path.parent)
    identity = str(identify_model(str(path)).revision).removeprefix("sha256:")
    folder = CACHE.expanduser() / f"{path.stem[:60]}-{identity}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            model: Any = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
            )
            # What says how the file was quantized must not come with numbers that no longer are.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(folder)
            tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
            tokenizer.save_pretrained(folder)
            (folder / "complete").touch()
    return folder
