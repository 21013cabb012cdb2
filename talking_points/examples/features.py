"""What the frozen vision path says about images and points: computed once, kept on disk, shared by runs and processes.

An entry is named by content: the digest of the image file, and a fingerprint of everything that the values depend on
(vision weights, frame size, precision; for points also the mask and the coordinates). It can therefore never be
stale, and any number of processes may write it at the same time: the last rename wins and all are equal.

The folder stays within its bound whatever uses it: what a ``prepare`` has written makes room at its end, and what it
found there counts as just used, so that the entries of other runs go first. A training leaves its bound in the folder,
and nobody with a smaller one removes what it allows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from talking_points.config import ConfigError, fingerprint
from talking_points.examples.config import FeatureConfig
from talking_points.examples.example_sets import ExampleSet, ImageExample
from talking_points.examples.points import PointExample, PointSet
from talking_points.locks import refuse_links
from talking_points.models.base import TalkingPointsModel
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.processes import process_state
from talking_points.regular_files import IrregularFileError, read_bytes, read_text
from talking_points.step_progress import follow
from talking_points.whole_files import advising, write_json

_MASK_FIELDS = (
    "gaussian_sigma", "gaussian_threshold", "mask_resize", "gaussian_layers", "gaussian_frame", "keypoint_mask",
    "prompt_box_half_side",
)  # fmt: skip

Set = TypeVar("Set", bound=ExampleSet[Any])

_OF_IMAGES = {"frame": 1, "visual_tokens": 3, "object_queries": 3, "object_valid": 2, "image_sizes": 2}
"""Names and dimensions of what is kept of an image."""

_PARTIAL = ".partial-"
_BOUND = "bound.json"

ABANDONED_SECONDS = 3600
"""Age from which a file that was never completed is taken for that of a killed process."""


class FeatureStore:
    """A folder of safetensors files of bounded size. The least recently used entries go first.

    ``memory_bytes`` of what was read stays in memory, the entries that were read first go first.
    """

    def __init__(self, folder: str | Path, limit_bytes: float, memory_bytes: float = 0) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self.memory_bytes = memory_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        refuse_links(self.folder.resolve())
        self._written = 0
        self._memory: dict[str, dict[str, Tensor]] = {}
        self._remembered = 0

    def read(
        self, key: str, fits: Callable[[Mapping[str, Tensor]], bool] = lambda entry: True
    ) -> dict[str, Tensor] | None:
        """The entry, or None where there is none that ``fits``, or another process has just removed or damaged it."""
        if key in self._memory:
            return self._memory[key]
        entry = self._load(self._path(key))
        if entry is None or not fits(entry):
            return None
        if self.memory_bytes:
            self._memory[key] = entry
            self._remembered += _size(entry)
            while self._remembered > self.memory_bytes:
                self._remembered -= _size(self._memory.pop(next(iter(self._memory))))
        return entry

    def _load(self, path: Path) -> dict[str, Tensor] | None:
        try:
            entry = load(read_bytes(path))
        except (FileNotFoundError, IrregularFileError, SafetensorError):
            return None
        _renew(path)
        return entry

    def write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store an entry atomically, then keep the folder within its bound.

        Raises ``TrainingStoppedError`` where it cannot be written; the entries that are there stay.
        """
        path = self._path(key)
        content = save(tensors)
        advice = "make room, or choose another features.folder, and run again; what is kept there stays"
        with advising(f"features to {self.folder}", advice):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f"{_PARTIAL}{uuid.uuid4().hex}"
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        self._written += len(content)
        # Looking at every entry costs time, so it is done once per twentieth of the bound, and when a prepare ends.
        if self._written > self.limit_bytes / 20:
            self.evict()

    def use(self, key: str) -> bool:
        """Whether there is such an entry, which is then the most recently used one."""
        return _renew(self._path(key))

    def remember_bound(self) -> None:
        """Leave this store's bound in the folder: from now on no other store removes what it allows."""
        with advising(f"the bound of the features in {self.folder}", "make room and run again"):
            write_json(self.folder / _BOUND, {"limit_bytes": self.limit_bytes})

    def bound(self) -> float:
        """Bytes that the folder may hold: this store's own limit, or a larger one that a training has left."""
        try:
            return max(self.limit_bytes, json.loads(read_text(self.folder / _BOUND))["limit_bytes"])
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ):  # none, or nothing that says more than the own one
            return self.limit_bytes

    def evict(self) -> int:
        """Remove the least recently used entries beyond the bound; returns how many bytes are left."""
        self._written = 0
        limit = self.bound()
        with FileLock(self.folder / ".lock"):
            entries = []
            for path in self.folder.rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if path.suffix == ".safetensors":
                        entries.append((status.st_mtime_ns, status.st_size, path))
                    elif path.name.startswith(_PARTIAL) and status.st_mtime < time.time() - ABANDONED_SECONDS:
                        path.unlink()
            size = sum(entry[1] for entry in entries)
            for _, own, path in sorted(entries):
                if size <= limit:
                    break
                path.unlink(missing_ok=True)
                size -= own
        return size

    def _path(self, key: str) -> Path:
        model, name = key.split("/")
        return self.folder / model / name[:2] / f"{name}.safetensors"


class ImageFeatures(Generic[Set]):
    """Vision features of the images of a set of examples under one model, from the store or computed into it.

    ``blind`` replaces every image by nothing, for the text-only control.
    """

    def __init__(self, model: TalkingPointsModel, points: Set, config: FeatureConfig, *, blind: bool = False) -> None:
        if model.config.train_vision:
            raise ConfigError("features of a vision path in training cannot be kept: set train_vision to false")
        self.model = model
        self.points = points
        self.config = config
        self.blind = blind
        self.store = FeatureStore(config.folder, config.limit_gb * 1e9, config.memory_gb * 1e9)
        self.dtype = config.dtype or model.config.feature_dtype or "float32"
        self._images = vision_fingerprint(model, self.dtype)
        self._sizes = {example.image: example.size for example in points.examples}

    def prepare(self) -> int:
        """Compute what is missing, decoding each image once; returns how many images that were.

        Processes that train together share the work. What other runs have left makes room for it.
        """
        state = process_state()
        needed = [self._any_image] if self.blind else list(self._sizes)
        missing = [image for image in needed[state.process_index :: state.num_processes] if not self._is_stored(image)]
        waiting: list[tuple[str, object]] = []
        with follow("features of the images", len(missing), unit="image") as progress:
            for digest, image in self.points.images(missing):
                waiting.append((digest, image))
                if len(waiting) == self.config.batch_size:
                    self._compute(waiting)
                    progress.advance(len(waiting))
                    waiting = []
            if waiting:
                self._compute(waiting)
                progress.advance(len(waiting))
        if missing:
            self.store.evict()
        state.wait_for_everyone()
        return len(missing)

    def of_images(self, examples: Sequence[ImageExample]) -> tuple[VisionFeatures, Tensor]:
        """Features of the different images of some examples, and which of them each is about (N,)."""
        images = list(dict.fromkeys(example.image for example in examples))
        features = VisionFeatures.concatenate([self._image(image) for image in images])
        place = {image: number for number, image in enumerate(images)}
        return features, torch.tensor([place[example.image] for example in examples])

    def _image(self, image: str) -> VisionFeatures:
        if not self.blind:
            return VisionFeatures.from_tensors(self._entry(self._image_key(image), image))
        # What says nothing about an image can be made of any other.
        other = VisionFeatures.from_tensors(self._entry(self._image_key(self._any_image), self._any_image))
        return replace(blind_features(other), image_sizes=torch.tensor([self._sizes[image]]))

    @property
    def _any_image(self) -> str:
        return next(iter(self._sizes))

    def _entry(self, key: str, image: str) -> dict[str, Tensor]:
        fits = partial(self._shows if key == self._image_key(image) else self._describes, image)
        entry = self.store.read(key, fits)
        if entry is None:
            # Removed to keep the bound, by this or another process, or of another form: compute it again.
            self._compute(list(self.points.images([image])))
            entry = self.store.read(key, fits)
        if entry is None:
            raise ConfigError(
                f"the feature cache {self.store.folder} does not keep what is written to it: raise features.limit_gb "
                f"above {self.config.limit_gb:g}"
            )
        return {name: value.float() if value.is_floating_point() else value for name, value in entry.items()}

    def _shows(self, image: str, entry: Mapping[str, Tensor]) -> bool:
        """Whether an entry has the form that is written for an image: its name alone says nothing of its content."""
        stored, valid = getattr(torch, self.dtype), entry.get("object_valid")
        return (
            {name: value.dim() for name, value in entry.items()} == _OF_IMAGES
            and valid is not None
            and valid.dtype == torch.bool
            and valid.shape == entry["object_queries"].shape[:2]
            and len(valid) == len(entry["visual_tokens"]) == 1
            and entry["visual_tokens"].dtype == entry["object_queries"].dtype == stored
            and entry["image_sizes"].tolist() == [list(self._sizes[image])]
            and len(entry["frame"]) == 2
            and not entry["frame"].is_floating_point()
        )

    def _describes(self, image: str, entry: Mapping[str, Tensor]) -> bool:
        """The same of the points of an image."""
        return False

    @torch.no_grad()
    def _compute(self, images: Sequence[tuple[str, object]]) -> None:
        features = self.model.encode_images([image for _, image in images])  # type: ignore[misc]
        for row, (digest, _) in enumerate(images):
            own = features.select([row])
            self.store.write(self._image_key(digest), self._pack(own.compact().tensors()))
            self._store_more(digest, own)

    def _store_more(self, image: str, features: VisionFeatures) -> None:
        """What a subclass keeps of an image besides its features."""

    def _pack(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: (value.to(getattr(torch, self.dtype)) if value.is_floating_point() else value).cpu().contiguous()
            for name, value in tensors.items()
        }

    def _is_stored(self, image: str) -> bool:
        return all(self.store.use(key) for key in self._keys(image))

    def _keys(self, image: str) -> list[str]:
        return [self._image_key(image)]

    def _image_key(self, image: str) -> str:
        return f"{self._images}/{image}"


class PointFeatures(ImageFeatures[PointSet]):
    """Vision features of a set of points, and under a descriptor those of the points themselves.

    ``withheld`` replaces every point by the centre of its image, for the ablation that knows nothing of the point.
    """

    def __init__(
        self,
        model: TalkingPointsModel,
        points: PointSet,
        config: FeatureConfig,
        *,
        blind: bool = False,
        withheld: bool = False,
    ) -> None:
        super().__init__(model, points, config, blind=blind)
        self.withheld = withheld
        self._masks = fingerprint({name: getattr(model.config, name) for name in _MASK_FIELDS})
        self._of_image: dict[str, list[tuple[float, float]]] = {}
        for example in points.examples:
            self._of_image.setdefault(example.image, []).append(self._show_point(example))
        self._of_image = {image: sorted(set(found)) for image, found in self._of_image.items()}

    def batch(self, examples: Sequence[PointExample]) -> tuple[VisionFeatures, Tensor, Tensor | None]:
        """Features of the different images of some points, the image of each (N,), and point features (N, 2C).

        The last are None for models without keypoint tokens, that is, for localizers.
        """
        features, index = self.of_images(examples)
        if not isinstance(self.model, PointDescriptor):
            return features, index, None
        return features, index, torch.stack([self._point(example) for example in examples])

    def _show_point(self, example: PointExample) -> tuple[float, float]:
        return (example.size[0] // 2, example.size[1] // 2) if self.withheld else example.keypoint

    def _point(self, example: PointExample) -> Tensor:
        entry = self._entry(self._point_key(example.image), example.image)
        return entry["points"][self._of_image[example.image].index(self._show_point(example))].float()

    def _describes(self, image: str, entry: Mapping[str, Tensor]) -> bool:
        return (
            entry.keys() == {"points"}
            and entry["points"].dim() == 2
            and len(entry["points"]) == len(self._of_image[image])
            and entry["points"].dtype == getattr(torch, self.dtype)
        )

    def _store_more(self, image: str, features: VisionFeatures) -> None:
        if isinstance(self.model, PointDescriptor):
            points = self._of_image[image]
            encoded = self.model.encode_points(features, points, torch.zeros(len(points), dtype=torch.long))
            self.store.write(self._point_key(image), self._pack({"points": encoded}))

    def _keys(self, image: str) -> list[str]:
        keys = super()._keys(image)
        return [*keys, self._point_key(image)] if isinstance(self.model, PointDescriptor) else keys

    def _point_key(self, image: str) -> str:
        return f"{self._images}/{image}-{fingerprint([self._masks, self._of_image[image]])}"


def _renew(path: Path) -> bool:
    """Make a file the most recently used one, if there is one."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _size(entry: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in entry.values())


def vision_fingerprint(model: TalkingPointsModel, dtype: str) -> str:
    """Names everything that image features depend on: the vision path's weights, the frame, the stored precision."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.vision.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    digest.update(f"{model.config.image_size} {dtype}".encode())
    return digest.hexdigest()


def blind_features(features: VisionFeatures) -> VisionFeatures:
    """Features that say nothing about the image: zeros, and one object token. Sizes stay, to map back to pixels."""
    valid = torch.zeros_like(features.object_valid)
    valid[:, 0] = True
    return VisionFeatures(
        visual_tokens=torch.zeros_like(features.visual_tokens),
        object_queries=torch.zeros_like(features.object_queries),
        object_valid=valid,
        image_sizes=features.image_sizes,
        frame=features.frame,
    )
