"""The training stages of one configuration, each in its own folder below ``output``, each made once.

A finished stage leaves ``stage.json`` with its fingerprint: everything that its weights depend on. Run again with
the same configuration and data it is taken as it is, an interrupted one goes on from its last checkpoint, and a folder
that belongs to another configuration is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from talking_points.allocator import keep_freed_memory
from talking_points.config import ConfigError, changed_fields, fingerprint
from talking_points.examples.labelled_images import labelled_pictures
from talking_points.examples.points import PointSet, ap10k_points, load_points
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.processes import process_state
from talking_points.records import ImageRecord
from talking_points.sources import open_source
from talking_points.training.adaptation import adapt_descriptor
from talking_points.training.config import StageConfig, TrainConfig, VisionConfig
from talking_points.training.descriptor import train_descriptor
from talking_points.training.localizer import train_localizer
from talking_points.training.start import check_tokenizer, save_vision, start_model
from talking_points.training.vision import pretrain_vision
from talking_points.whole_files import advising, write_json

STARTED, FINISHED = "started.json", "stage.json"

NOT_IN_FINGERPRINT: dict[str, Any] = {
    "output": True,
    "threads": True,
    "features": {"folder", "limit_gb", "memory_gb", "batch_size"},
}
"""Fields that cannot change a weight. Cached features are the same values that would be computed anew."""

_SECTIONS = {
    "vision": ("vision",),
    "localizer": ("vision", "localizer"),
    "descriptor": ("vision", "descriptor"),
    "adapted": ("vision", "localizer", "descriptor", "adapt", "ap10k"),
}
"""The sections of the configuration that a stage depends on."""


def pretrained_vision(config: TrainConfig, name: str = "vision") -> dict[str, Any]:
    """Pretrain the vision path that localizer and descriptor start from: ``output/<name>/vision.safetensors``."""

    def work(folder: Path) -> dict[str, float]:
        model = start_model(PointDescriptor, config, config.descriptor, [])  # no text reaches the vision path
        held_out = set()
        if not config.vision.separate:
            held_out = {example.image for example in _points(config, "test", config.descriptor.text).examples}
        pictures = labelled_pictures(vision_records(config.vision, held_out), config.image_size)
        found = pretrain_vision(model, pictures, config.vision, config.seed)
        save_vision(model, folder / "vision.safetensors")
        return found

    return _once(config, name, "vision", work)


def vision_records(config: VisionConfig, held_out: Collection[str]) -> Iterator[ImageRecord]:
    """What the vision path may learn from: every source but the pictures of the held-out digests.

    The dataset is not split as its sources are, so that their own training images are among its test images.
    """
    for name, root in sorted(config.sources.items()):
        allowed = (
            record
            for record in open_source(name, root)
            if hashlib.sha256(record.image_path.read_bytes()).hexdigest() not in held_out
        )
        yield from islice(allowed, config.images)


def trained_localizer(config: TrainConfig, name: str | None = None) -> dict[str, Any]:
    """Train the localizer into ``output/<name>``, by default its ``stage``; other names keep variants apart."""

    def work(folder: Path) -> dict[str, float]:
        train, held_out = _train_and_held_out(config, config.localizer)
        texts = [example.text for example in train.examples]
        # A localizer that never sees an image needs no vision path.
        vision = None if config.localizer.blind else _vision(config)
        model = start_model(PointLocalizer, config, config.localizer, texts, vision)
        return train_localizer(model, train, held_out, config.localizer, config.features, folder, config.seed)

    return _once(config, name or config.localizer.stage, "localizer", work)


def trained_descriptor(config: TrainConfig, name: str = "descriptor") -> dict[str, Any]:
    """Train the descriptor into ``output/<name>``."""

    def work(folder: Path) -> dict[str, float]:
        train, held_out = _train_and_held_out(config, config.descriptor)
        texts = [example.text for example in train.examples]
        model = start_model(PointDescriptor, config, config.descriptor, texts, _vision(config))
        return train_descriptor(model, train, held_out, config.descriptor, config.features, folder, config.seed)

    return _once(config, name, "descriptor", work)


def adapted_descriptor(config: TrainConfig, name: str | None = None) -> dict[str, Any]:
    """Adapt the descriptor on one family of AP-10K by the reward of the localizer.

    It goes into ``output/<name>``; without a name into ``output/adapted-<family>``, so that each family has its own.
    """

    def work(folder: Path) -> dict[str, float]:
        train, held_out = family_points(config, config.ap10k.train_family), None
        if config.adapt.validation:
            train, held_out = train.hold_out(config.adapt.validation)
        model = PointDescriptor.from_pretrained(config.descriptor_path or config.output / "descriptor")
        localizer = PointLocalizer.from_pretrained(config.localizer_path or config.output / "localizer")
        for given in (model, localizer):
            check_tokenizer(given)
        return adapt_descriptor(model, localizer, train, held_out, config.adapt, config.features, folder, config.seed)

    return _once(config, name or f"adapted-{config.ap10k.train_family.lower()}", "adapted", work)


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "descriptor": trained_descriptor,
    "localizer": trained_localizer,
}
"""The stages that several processes can share: of a configuration and the stage's name, which has a default."""


def family_points(config: TrainConfig, family: str) -> PointSet:
    """The points of one family of AP-10K."""
    if config.ap10k.root is None:
        raise ConfigError("adaptation needs keypoints without descriptions: set ap10k.root to the folder of AP-10K")
    source = open_source("ap10k", config.ap10k.root, families=[family])
    return ap10k_points(source, family, config.ap10k.limit, config.seed)


def dataset_digest(path: str, revision: str | None) -> str:
    """Names a dataset's content: the digests of a folder's data files, or the repository and its revision."""
    folder = Path(path)
    if not folder.is_dir():
        return f"{path}@{revision}"
    return fingerprint(
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("data/*.parquet"))}
    )


def stage_settings(config: TrainConfig, kind: str) -> dict[str, Any]:
    """What the weights of a stage depend on, as plain JSON values."""
    others = {section for sections in _SECTIONS.values() for section in sections} - set(_SECTIONS[kind])
    settings = config.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT | dict.fromkeys(others, True))
    settings["features"]["dtype"] = config.features.dtype or "float32"
    unseen = kind == "vision" and config.vision.separate
    settings["dataset"] = None if unseen else dataset_digest(config.dataset, config.revision)
    return settings


def _once(config: TrainConfig, name: str, kind: str, work: Callable[[Path], dict[str, float]]) -> dict[str, Any]:
    folder, state = config.output / name, process_state()
    settings = stage_settings(config, kind)
    with state.main_process_first():
        if (folder / STARTED).exists():
            before = json.loads((folder / STARTED).read_text())
            if before != settings:
                changes = "; ".join(changed_fields(before, settings)[:8])
                raise ConfigError(f"{folder} holds a stage of another configuration ({changes}): choose another output")
            if (folder / FINISHED).exists():
                return {**json.loads((folder / FINISHED).read_text()), "reused": True}
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / STARTED, settings)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    wall, cpu = time.monotonic(), time.process_time()
    metrics = work(folder)
    result = {
        "stage": name,
        "path": str(folder),
        "fingerprint": fingerprint(settings),
        "seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "metrics": metrics,
    }
    if state.is_main_process:
        _write(folder / FINISHED, result)
    return {**result, "reused": False}


def _write(path: Path, content: dict[str, Any]) -> None:
    with advising(str(path), "make room and run again"):
        write_json(path, content)


def _train_and_held_out(config: TrainConfig, stage: StageConfig) -> tuple[PointSet, PointSet]:
    train = _points(config, "train", stage.text)
    return train.hold_out(stage.validation) if stage.validation else (train, _points(config, "test", stage.text))


def _points(config: TrainConfig, split: str, text: str) -> PointSet:
    return load_points(
        config.dataset,
        split,
        text,
        revision=config.revision,
        streaming=config.streaming,
        limit=config.limit if split == "train" else None,
        seed=config.seed,
    )


def _vision(config: TrainConfig) -> Path | None:
    path = config.output / "vision" / "vision.safetensors"
    return path if config.vision.steps else None
