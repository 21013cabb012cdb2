"""A CUDA device for machines that have none: where tensors lie is pretended, their values are computed on the CPU.

Inside ``PretendCuda`` tensors remember whether they lie on ``cuda:0`` or on the CPU. What real CUDA refuses is
refused: an operation on tensors of both devices (but for single numbers, copies and indices), and ``numpy`` of a tensor
that has not been brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

_MIXED = {
    # An index may lie on the CPU, and copies go across.
    Tensor.__getitem__, Tensor.__setitem__, Tensor.copy_, Tensor.index_put_,
    # Nothing is computed with the other tensor.
    Tensor.type_as, Tensor.new_tensor, Tensor.__deepcopy__,
}  # fmt: skip


_ABOUT_TYPES = {torch.device, torch._C._nn._parse_to, torch._has_compatible_shallow_copy_type}


class WrongDeviceError(RuntimeError):
    """An operation that real CUDA would refuse."""


class PretendCuda(TorchFunctionMode):
    """``with PretendCuda(): model.to("cuda")`` and then whatever is to be tried."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ABOUT_TYPES:
            return func(*args, **kwargs)
        if func == Tensor.device.__get__:
            return CUDA if _pretends(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return _pretends(args[0])
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            args[0].pretends_cuda = _pretends(args[1])
            return func(*args)
        if func is Tensor.numpy and _pretends(args[0]):
            raise WrongDeviceError("numpy() of a CUDA tensor: call cpu() first")
        if func in (Tensor.cpu, Tensor.cuda):
            return _placed(args[0], args[0], func is Tensor.cuda)
        target = _target(func, args, kwargs)
        on_cuda = [tensor for tensor in _tensors((args, kwargs)) if _pretends(tensor)]
        if target is None:
            others = [tensor for tensor in _tensors((args, kwargs)) if not _pretends(tensor) and tensor.dim() > 0]
            first_on_cpu = bool(args) and isinstance(args[0], Tensor) and not _pretends(args[0]) and args[0].dim() > 0
            if on_cuda and others and (func not in _MIXED or (func is Tensor.__getitem__ and first_on_cpu)):
                raise WrongDeviceError(f"{getattr(func, '__name__', func)} of tensors on cuda:0 and on the CPU")
            if func in _MIXED and not (bool(args) and _pretends(args[0])):
                return func(*args, **kwargs)
        args, kwargs = _on_cpu(args), _on_cpu(kwargs)
        result = func(*args, **kwargs)
        pretended = bool(on_cuda) if target is None else target.type == "cuda"
        if isinstance(result, Tensor):
            return _placed(result, args[0] if args else None, pretended)
        if pretended:
            for tensor in _tensors(result):
                tensor.pretends_cuda = True  # type: ignore[attr-defined]
        return result


def _pretends(value: Any) -> bool:
    return isinstance(value, Tensor) and vars(value).get("pretends_cuda", False)


def _placed(result: Tensor, source: Any, pretended: bool) -> Tensor:
    # A transfer makes another tensor; what stays where it is may be the same.
    if result is source and _pretends(source) != pretended:
        result = result.view_as(result)
    with torch._C.DisableTorchFunction():
        result.pretends_cuda = pretended  # type: ignore[attr-defined]
    return result


def _target(func: Callable, args: tuple, kwargs: dict) -> torch.device | None:
    """The device that a call names, if any."""
    named = kwargs.get("device")
    if func is Tensor.to and named is None:
        for value in args[1:]:
            if isinstance(value, Tensor):
                return CUDA if _pretends(value) else CPU
            if isinstance(value, (str, torch.device)):
                named = value
    return None if named is None else torch.device(named)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) or value in ("cuda", "cuda:0"):
        return CPU
    if type(value) in (tuple, list):
        return type(value)(_on_cpu(item) for item in value)
    if type(value) is dict:
        return {key: _on_cpu(item) for key, item in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
