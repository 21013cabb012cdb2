"""Files of weights by their names and headers, before a library opens them: which they are, what they hold, how much.

Needs neither torch nor transformers.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

from talking_points.errors import InputError
from talking_points.models.model_limits import LAYERS, walk_objects
from talking_points.regular_files import open_regular, read_bytes

HEADER, TENSORS = 32 << 20, 1 << 16
"""Bytes of a safetensors header, and tensors of one file: those of the largest models are a tenth of it."""

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""Of files of weights."""

_WHOLE = "model.safetensors"
_NAME = re.compile(r"[\w][\w.-]*")
_WIDTHS, _INNER = ("hidden_size", "d_model", "n_embd", "embed_dim"), ("intermediate_size", "d_ff", "ffn_dim", "n_inner")
_PACKED = 32
"""Numbers that one of a quantized file may stand for, and a reserve."""
_SMALL = 1 << 26
"""Numbers that a model may have in any case: 256 MB."""


class WeightFileError(ValueError):
    """What is wrong with one safetensors file, in words that follow its name."""


class _Held(NamedTuple):
    tensors: int
    numbers: int


def list_weights(path: Path) -> list[Path]:
    """The files of weights at ``path``, one or a folder of them, none of which is opened by a library.

    Raises ``InputError`` where there is none, and for one that was not fetched: empty, or a pointer of git-lfs.
    """
    if not path.exists():
        raise InputError(f"expected a file or folder of the release at {path}, found nothing: check the path")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    weights = [file for file in files if file.suffix in SUFFIXES]
    if not weights:
        raise InputError(f"expected weights ({', '.join(SUFFIXES)}) in {path}, found none: fetch them")
    for file in weights:
        if file.is_dir():
            raise InputError(f"expected a file of weights at {file}, found a folder: fetch the file")
        with open_regular(file) as stream:
            start = stream.read(8)
        if not start:
            raise InputError(f"expected weights in {file}, found an empty file: fetch it again")
        if start == b"version ":
            raise InputError(f"{file} is a pointer of git-lfs: fetch the file with 'git lfs pull'")
    return weights


def check_weights(folder: Path, config: Any) -> None:
    """Refuse indexes that lead out of ``folder``, headers without end, and a ``config`` of a far larger model.

    What is damaged in another way is left to the library that reads it. Raises ``InputError`` with the file.
    """
    for index in sorted(folder.glob("*.index.json")):
        elsewhere = [name for name in _indexed(index) if not _NAME.fullmatch(name)]
        if elsewhere:
            raise InputError(
                f"{index}: expected names of files in its folder, found {elsewhere[0][:80]!a}: it is not used; take "
                "the files that the model was published with"
            )
    loaded = _loaded(folder)
    held = _Held(0, 0)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            header = read_header(path)
            numbers = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except WeightFileError as error:
            if error.args[0].startswith("has a header"):
                raise InputError(f"{path} {error}: it is not used") from None
            header = None
        except (LookupError, TypeError, AttributeError):
            header = None
        if loaded and path.name not in loaded:
            continue
        if header is None:
            return
        held = _Held(held.tensors + len(header), held.numbers + numbers)
    if held.tensors:
        _compare(config, held, folder)


def _loaded(folder: Path) -> list[str]:
    """Names of the files that a model is loaded from, as transformers chooses them; none where any may be."""
    if (folder / _WHOLE).is_file():
        return [_WHOLE]
    index = folder / f"{_WHOLE}.index.json"
    return _indexed(index) if index.is_file() else []


def _indexed(index: Path) -> list[str]:
    """Names of files in an index of weights; none where it has another form."""
    try:
        values = json.loads(read_bytes(index))["weight_map"].values()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    return sorted({value for value in values if isinstance(value, str)})


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file. Raises ``WeightFileError``, ``OSError``."""
    with open_regular(path) as stream:
        start = stream.read(8)
        if start == b"version ":
            raise WeightFileError("is a pointer of git-lfs: fetch the file with 'git lfs pull'")
        try:
            length = struct.unpack("<Q", start)[0]
            if length > 100 * 2**20:
                raise WeightFileError("is no safetensors file")
            if length > HEADER:
                raise WeightFileError(f"has a header of {length:,} bytes, more than the {HEADER:,} of any model")
            header = json.loads(stream.read(length))
        except (struct.error, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            raise WeightFileError("is no safetensors file, or was cut off") from None
    if not isinstance(header, dict):
        raise WeightFileError("is no safetensors file, or was cut off")
    if len(header) > TENSORS:
        raise WeightFileError(f"has a header with {len(header):,} tensors, more than the {TENSORS:,} of any model")
    return header


def check_length(path: Path) -> None:
    """Refuse a safetensors file that is longer or shorter than its header says. Raises as ``read_header``."""
    header = read_header(path)
    with open_regular(path) as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
    try:
        ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        raise WeightFileError("is no safetensors file, or was cut off") from None
    wanted, size = 8 + length + max(ends, default=0), path.stat().st_size
    if size != wanted:
        raise WeightFileError(f"has {size} bytes instead of {wanted}")


def _compare(config: Any, held: _Held, folder: Path) -> None:
    """A library builds what the configuration asks for, at random where the weights do not have it."""
    for values in walk_objects(config):
        for name, value in values.items():
            layers = max(_counts(value), default=0)
            if LAYERS.search(name) and layers > held.tensors + 64:
                raise _too_large(folder, f"a {name[:80]!a} of {layers:,}", f"{held.tensors:,} tensors")
        width, inner = (max((_count(values.get(name)) for name in names), default=0) for names in (_WIDTHS, _INNER))
        blocks = max(1, *(_count(values.get(name)) for name in ("num_hidden_layers", "n_layer", "num_layers")))
        numbers = width * _count(values.get("vocab_size")) + blocks * width * (width + inner)
        if numbers > _PACKED * held.numbers + _SMALL:
            raise _too_large(folder, f"{numbers:,} numbers", f"{held.numbers:,}")


def _too_large(folder: Path, asked: str, found: str) -> InputError:
    return InputError(
        f"{folder / 'config.json'} asks for {asked}, the weights beside it hold {found}: the rest would be random; "
        "take the files that the model was published with"
    )


def _counts(value: Any) -> list[int]:
    return [_count(number) for number in value] if isinstance(value, list) else [_count(value)]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
