"""Files of tensors that somebody else may have written: looked at before a library opens them by their names.

Of pickled ones plain tensors alone are read; torch is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_points.regular_files import check_regular
from talking_points.whole_files import take_umask, writing_whole

if TYPE_CHECKING:
    from torch import Tensor


def load_tensors(path: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises ``OSError`` for a pipe or a device, ``SafetensorError``."""
    from safetensors.torch import load_file

    check_regular(path)
    return load_file(path, device=device)


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, whole and with the umask's mode: the library's is the writer's alone.

    Raises what safetensors raises.
    """
    from safetensors.torch import save_file

    with writing_whole(path) as temporary:
        save_file(dict(tensors), temporary, None if metadata is None else dict(metadata))


def share_weights(folder: str | Path) -> None:
    """Give the weights that ``save_pretrained`` has just written into ``folder`` the umask's mode."""
    take_umask(Path(folder).glob("*.safetensors"))


@contextmanager
def open_tensors(path: str | Path, framework: str = "pt") -> Iterator[Any]:
    """An open safetensors file, as ``safetensors.safe_open`` gives it. Raises as ``load_tensors``."""
    from safetensors import safe_open

    check_regular(path)
    with safe_open(path, framework) as file:
        yield file


def load_pickled(path: str | Path, *, mmap: bool = False) -> Any:
    """What ``torch.save`` left of tensors and plain values. Raises ``OSError``, ``pickle.UnpicklingError`` for more."""
    import torch

    check_regular(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_metadata(path: str | Path) -> Mapping[str, str]:
    """What the header of a safetensors file says beside its tensors. Raises as ``load_tensors``."""
    with open_tensors(path, "numpy") as file:
        return dict(file.metadata() or {})
