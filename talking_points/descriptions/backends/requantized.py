"""A GGUF file's weights in another format, written once by llama.cpp itself and kept in the user's cache."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
from filelock import FileLock
from llama_cpp._utils import suppress_stdout_stderr

from talking_points.descriptions.model_identity import identify_model
from talking_points.errors import InputError

CACHE = Path("~/.cache/talking-points/requantized")
FORMATS = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
}
"""Formats that llama.cpp multiplies blockwise on a CPU, for several tokens in little more time than for one."""


def requantized(path: str, form: str) -> str:
    """The path of the file with its weights in the format ``form``, made on first use.

    Raises ``InputError`` for a format that there is not, and where llama.cpp refuses the file.
    """
    if form not in FORMATS:
        raise InputError(f"options.quantize: expected one of {', '.join(FORMATS)}, found {form!r}")
    identity = str(identify_model(path).revision).removeprefix("sha256:")
    file = CACHE.expanduser() / f"{Path(path).stem[:60]}-{identity}-{llama_cpp.__version__}.{form}.gguf"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            parameters = llama_cpp.llama_model_quantize_default_params()
            parameters.ftype, parameters.allow_requantize, parameters.nthread = FORMATS[form], True, 1
            unfinished = f"{file}.unfinished"
            with suppress_stdout_stderr(disable=False):
                failed = llama_cpp.llama_model_quantize(path.encode(), unfinished.encode(), ctypes.byref(parameters))
            if failed:
                raise InputError(f"llama.cpp cannot write the weights of {path} as {form}: leave out options.quantize")
            Path(unfinished).replace(file)
    return str(file)
