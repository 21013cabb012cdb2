"""Reading the official release: a catalogue of every tensor in its files, and the plan that turns them into ours.

Nothing is loaded until a planned tensor is asked for, and then only what it needs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from talking_points.errors import InputError
from talking_points.models.omg_llava.checkpoint_keys import PROTOTYPES, Heads, is_ignored, targets
from talking_points.models.weight_files import list_weights
from talking_points.tensor_files import load_pickled, open_tensors


class ConversionError(InputError):
    """The release cannot be converted: lists every key that is unknown, missing or of another shape."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the release: where it is, its shape, and how to load it."""

    key: str
    file: str
    shape: tuple[int, ...]
    load: Callable[[], Tensor] = field(repr=False)

    @property
    def meta(self) -> Tensor:
        """A tensor of the same shape without content."""
        return torch.empty(self.shape, device="meta")


Catalogue = dict[str, Entry]
"""Official key -> entry. A key of a later file replaces the same key of an earlier one."""


def read_catalogue(paths: Iterable[str | Path]) -> Catalogue:
    """List every tensor of the given files and folders (.safetensors, .bin, .pth, .pt), in the given order."""
    catalogue: Catalogue = {}
    for path in map(Path, paths):
        for file in list_weights(path):
            entries = _safetensors(file) if file.suffix == ".safetensors" else _list_pickled(file)
            catalogue.update({entry.key: entry for entry in entries})
    return catalogue


def _safetensors(path: Path) -> Iterator[Entry]:
    def loader(key: str) -> Callable[[], Tensor]:
        def load() -> Tensor:
            with open_tensors(path) as file:
                return file.get_tensor(key)

        return load

    with open_tensors(path) as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            yield Entry(key, path.name, tuple(file.get_slice(key).get_shape()), loader(key))


def _list_pickled(path: Path) -> Iterator[Entry]:
    """Entries of a torch checkpoint, read through a memory map where its format allows."""
    try:
        try:
            content = load_pickled(path, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped
            content = load_pickled(path)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path} holds more than tensors, so it is not loaded ({str(error).splitlines()[0]}): "
            "keep only its state dict and save that again"
        ) from error
    if isinstance(content, Tensor):
        content = {PROTOTYPES: content}
    elif isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    for key, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise ConversionError(f"expected only tensors in {path}, found {type(tensor).__name__} under {key!r}")
        yield Entry(key, path.name, tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]


@dataclass(frozen=True)
class _Source:
    entry: Entry
    take: Callable[[Tensor], Tensor]

    def tensor(self) -> Tensor:
        return self.take(self.entry.load())

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.take(self.entry.meta).shape)


@dataclass(frozen=True)
class Plan:
    """Where every parameter of the model comes from; ``low_rank`` holds the adapters to merge into a weight."""

    sources: dict[str, _Source]
    low_rank: dict[str, tuple[_Source, _Source]]
    lora_scale: float

    def tensor(self, name: str) -> Tensor:
        """One parameter under our name, in the release's precision or, where an adapter is merged, float32."""
        weight = self.sources[name].tensor()
        if name in self.low_rank:
            down, up = (source.tensor().float() for source in self.low_rank[name])
            # One product in place of three: a vocabulary of float32 is the largest tensor by far.
            weight = torch.addmm(weight.float(), up, down, alpha=self.lora_scale)
        return weight


def plan_conversion(
    catalogue: Catalogue, expected: Mapping[str, tuple[int, ...]], heads: Heads, lora_scale: float
) -> Plan:
    """Find a source for every expected parameter and a use for every tensor of the release.

    Args:
        expected: our parameters' names and shapes. Adapters of the release stay adapters where the model has
            them (``...lora_A...``) and are merged everywhere else.
        heads: the language model's head counts.
        lora_scale: alpha / rank of the release's adapters.

    Raises:
        ConversionError: with all unknown, missing and mis-shaped keys at once.
    """
    available: dict[str, _Source] = {}
    unknown = []
    for key, entry in catalogue.items():
        if is_ignored(key):
            continue
        places = targets(key, heads)
        if not places:
            unknown.append(f"{key} {entry.shape} in {entry.file}")
        for place in places:
            name = re.sub(r"\.lora_([AB])\.\w+\.weight$", r".lora_\1.default.weight", place.name)
            available[name] = _Source(entry, place.take)

    sources, low_rank, missing = {}, {}, []
    for name in expected:
        plain = name.replace(".base_layer.", ".")
        if plain not in available:
            missing.append(f"{name} {tuple(expected[name])}")
            continue
        sources[name] = available.pop(plain)
        module = name.removesuffix(".weight")
        adapter = (f"{module}.lora_A.default.weight", f"{module}.lora_B.default.weight")
        if adapter[0] in available and adapter[1] in available:
            low_rank[name] = (available.pop(adapter[0]), available.pop(adapter[1]))
    unknown += [f"{source.entry.key} (our {name}, which the configuration lacks)" for name, source in available.items()]

    misshaped = []
    for name, source in sources.items():
        try:
            shape = source.shape
            if name in low_rank and (low_rank[name][1].shape[0], low_rank[name][0].shape[1]) != shape:
                shape = (low_rank[name][1].shape[0], low_rank[name][0].shape[1])
        except RuntimeError:
            shape = source.entry.shape
        if shape != tuple(expected[name]):
            misshaped.append(f"{source.entry.key} gives {shape}, expected {tuple(expected[name])} for {name}")
    problems = {"unknown": unknown, "missing": missing, "of another shape": misshaped}
    if any(problems.values()):
        lines = [f"{len(keys)} {kind}:\n  " + "\n  ".join(sorted(keys)) for kind, keys in problems.items() if keys]
        raise ConversionError(
            "the release and the model do not fit together\n"
            + "\n".join(lines)
            + "\ncheck that every file of the release is given, base model first, and that the configuration is its own"
        )
    return Plan(sources, low_rank, lora_scale)
