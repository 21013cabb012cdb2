"""The training stages of one configuration as one table, each in its own folder below ``output``, each made once.

A further kind of model is a section of ``TrainConfig`` and a row in ``STAGES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from talking_points.allocator import keep_freed_memory
from talking_points.config import ConfigError
from talking_points.dataset_manifest import dataset_digest, read_origin
from talking_points.examples.bare_points import load_bare_points
from talking_points.examples.config import KeypointsConfig
from talking_points.examples.labelled_images import load_labelled_images
from talking_points.examples.points import PointSet, load_points
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.sources.drawn import is_drawn
from talking_points.step_progress import follow_each
from talking_points.terminal import tell
from talking_points.training.adaptation import adapt_descriptor
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.answerer_stages import pose_data, pretrain_pose_vision_stage, train_answerer_stage
from talking_points.training.config import StageConfig, TrainConfig, TransferConfig
from talking_points.training.descriptor import train_descriptor
from talking_points.training.localizer import train_localizer
from talking_points.training.made_once import FINISHED, make_once
from talking_points.training.precision import check_bf16
from talking_points.training.pretraining_state import forget_pretraining
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.segmenter_stages import (
    instruction_data,
    pretrain_segmenter_vision,
    refine_segmenter_stage,
    train_segmenter_stage,
)
from talking_points.training.start import check_tokenizer, save_vision, start_model
from talking_points.training.vision import pretrain_vision
from talking_points.training.vision_records import vision_records

NOT_IN_FINGERPRINT: dict[str, Any] = {
    "output": True,
    "threads": True,
    "allow_drawn": True,
    "control": True,
    "memory_gb": True,
    "features": {"folder", "limit_gb", "memory_gb", "batch_size"},
    "keypoints": {"test_categories"},
    "poses": {"links"},
}
"""Fields that cannot change a weight. Cached features are the same values that would be computed anew."""


def _pretrain_vision(config: TrainConfig, folder: Path) -> dict[str, float]:
    """The vision path that the others start from: ``vision.safetensors``."""
    model = start_model(PointDescriptor, config, config.descriptor, [])  # no text reaches the vision path
    held_out = set()
    if not config.vision.separate:
        held_out = {example.image for example in _points(config, "test", config.descriptor.text).examples}
    records = follow_each(vision_records(config.vision, held_out), "reading images for the vision path", unit="image")
    images = load_labelled_images(records, config.image_size)
    found = pretrain_vision(model, images, config.vision, config.seed, folder)
    save_vision(model, folder / "vision.safetensors")
    forget_pretraining(folder)
    return found


def _train_localizer(config: TrainConfig, folder: Path) -> dict[str, float]:
    train, held_out = _train_and_held_out(config, config.localizer)
    texts = [example.text for example in train.examples]
    # A localizer that never sees an image needs no vision path.
    vision = None if config.localizer.blind else _vision(config)
    model = start_model(PointLocalizer, config, config.localizer, texts, vision)
    return train_localizer(model, train, held_out, config.localizer, config.features, folder, config.seed)


def _train_descriptor(config: TrainConfig, folder: Path) -> dict[str, float]:
    train, held_out = _train_and_held_out(config, config.descriptor)
    texts = [example.text for example in train.examples]
    model = start_model(PointDescriptor, config, config.descriptor, texts, _vision(config))
    return train_descriptor(model, train, held_out, config.descriptor, config.features, folder, config.seed)


def _adapt_descriptor(config: TrainConfig, folder: Path) -> dict[str, float]:
    """The descriptor on keypoints without descriptions, by the reward of the localizer."""
    train, held_out = load_bare_points(config.keypoints, config.keypoints.limit, config.seed), None
    if config.adapt.validation:
        train, held_out = train.hold_out(config.adapt.validation)
    model = PointDescriptor.from_pretrained(config.descriptor_path or config.output / "descriptor")
    localizer = PointLocalizer.from_pretrained(config.localizer_path or config.output / "localizer")
    for given in (model, localizer):
        check_tokenizer(given)
    return adapt_descriptor(model, localizer, train, held_out, config.adapt, config.features, folder, config.seed)


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    sections: those of the configuration that the weights depend on, the stage's own last.
    train: does the work in a folder and returns the last logged values.
    folder: the stage's folder below the output, where none is named.
    config: the kind of configuration that has these sections.
    data: names the content of what is trained on.
    """

    sections: tuple[str, ...]
    train: Callable[[TrainConfig, Path], dict[str, float]]
    folder: Callable[[Any], str]
    config: type[TrainConfig] = TrainConfig
    data: Callable[[Any], Any] = lambda config: dataset_digest(config.dataset, config.revision)

    def processes(self, config: TrainConfig) -> int:
        """How many processes train together."""
        return getattr(getattr(config, self.sections[-1]), "processes", 1)


STAGES = {
    "vision": Stage(
        ("vision",),
        _pretrain_vision,
        lambda config: "vision",
        data=lambda config: None if config.vision.separate else dataset_digest(config.dataset, config.revision),
    ),
    "localizer": Stage(("vision", "localizer"), _train_localizer, lambda config: config.localizer.stage),
    "descriptor": Stage(("vision", "descriptor"), _train_descriptor, lambda config: "descriptor"),
    "adapted": Stage(
        ("vision", "localizer", "descriptor", "keypoints", "adapt"),
        _adapt_descriptor,
        lambda config: _name_adapted(config.keypoints),
    ),
    "pose_vision": Stage(
        ("poses", "pose_vision"),
        pretrain_pose_vision_stage,
        lambda config: "pose-vision",
        AnswererConfig,
        pose_data,
    ),
    "answerer": Stage(
        ("poses", "pose_vision", "answerer"),
        train_answerer_stage,
        lambda config: config.answerer.stage,
        AnswererConfig,
        pose_data,
    ),
    "segmenter_vision": Stage(
        ("segmenter_vision",),
        pretrain_segmenter_vision,
        lambda config: "vision",
        SegmenterConfig,
        lambda config: None if config.segmenter_vision.separate else instruction_data(config),
    ),
    "segmenter": Stage(
        ("segmenter_vision", "instructions", "segmenter"),
        train_segmenter_stage,
        lambda config: "segmenter",
        SegmenterConfig,
        instruction_data,
    ),
    "refined": Stage(
        ("segmenter_vision", "instructions", "segmenter", "refine"),
        refine_segmenter_stage,
        lambda config: "refined",
        SegmenterConfig,
        instruction_data,
    ),
}

_OF_RATIOS = ("objective", "updates", "clip_low", "clip_high")
"""Fields that mean nothing to an adaptation without ratios: finished folders do not know them and are taken."""


def run_stage(kind: str, config: TrainConfig, name: str | None = None) -> dict[str, Any]:
    """Make the stage ``kind`` of a configuration in ``output/<name>``, or take it as it is; returns its result.

    Without a name it goes into the stage's own folder; other names keep variants apart. Raises what ``make_once`` does,
    and ``ConfigError`` for the paper's preset on drawn data, and for bfloat16 on a GPU without it.
    """
    stage = STAGES[kind]
    refuse_drawn(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    folder = config.output / (name or stage.folder(config))
    section, field = stage.sections[-1], "backbone_bf16" if kind in ("vision", "segmenter_vision") else "bf16"
    if getattr(getattr(config, section), field) and not (folder / FINISHED).is_file():
        check_bf16(f"{section}.{field}")
    made = (folder / FINISHED).is_file()
    tell(f"{folder.name}: {'made before' if made else 'is made'} in {folder}")
    return make_once(folder, kind, stage_settings(config, kind), partial(stage.train, config))


def refuse_drawn(config: TrainConfig) -> None:
    """Raise ``ConfigError`` where the paper's preset would learn from drawn stand-ins without being told to."""
    if config.preset != "paper" or config.allow_drawn:
        return
    roots = {
        **find_keypoint_roots(config),
        "keypoints.root": config.keypoints.root,
        **{f"vision.sources.{n}": r for n, r in config.vision.sources.items()},
    }
    drawn = {name: str(root) for name, root in roots.items() if root is not None and is_drawn(root)}
    rows = config.poses.rows if isinstance(config, AnswererConfig) else None
    for name, dataset in (("dataset", config.dataset), ("poses.rows", rows)):
        if dataset and (sources := find_drawn_sources(str(dataset))):
            drawn[name] = f"{dataset} (of {', '.join(sources)})"
    if drawn:
        raise ConfigError(
            f"the paper's preset learns from real images, but these are drawn stand-ins: "
            f"{'; '.join(f'{name}: {found}' for name, found in drawn.items())}. Name what was built from the real "
            "sources, or set allow_drawn=true to try the way with drawings"
        )


def find_keypoint_roots(config: TrainConfig) -> dict[str, Path | None]:
    """The folders of the keypoints that an answerer learns from, by setting."""
    if not isinstance(config, AnswererConfig):
        return {}
    return {"poses.root": config.poses.root, "poses.own": config.poses.own}


def find_drawn_sources(dataset: str) -> list[str]:
    """The sources of a built dataset that are drawn stand-ins, as its manifest says; none where it says nothing."""
    if not (Path(dataset) / "manifest.json").is_file():
        return []
    _, drawn = read_origin(Path(dataset))
    return sorted(name for name, is_drawn in drawn.items() if is_drawn)


def stage_settings(config: TrainConfig, kind: str) -> dict[str, Any]:
    """What the weights of a stage depend on, as plain JSON values."""
    others = {section for stage in STAGES.values() for section in stage.sections} - set(STAGES[kind].sections)
    settings = config.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT | dict.fromkeys(others, True))
    settings["features"]["dtype"] = config.features.dtype or "float32"
    settings["dataset"] = STAGES[kind].data(config)
    if settings.get("adapt", {}).get("objective") == "grpo":
        for name in _OF_RATIOS:
            del settings["adapt"][name]
    if settings.get("poses", {}).get("rows", True) is None:
        del settings["poses"]["rows"]
    former = _write_as_formerly(config.keypoints)
    if former and settings.pop("keypoints", None):
        settings["ap10k"] = former
    return settings


def _write_as_formerly(keypoints: TransferConfig) -> dict[str, Any] | None:
    """Families of AP-10K as they were written when nothing else was there, so that finished folders are taken."""
    trained, tested = keypoints.categories, keypoints.test_categories
    if keypoints.source != "ap10k" or keypoints.split is not None or len(trained) != 1 or len(tested) != 1:
        return None
    values = keypoints.model_dump(mode="json", include={"root", "limit"})
    return {"root": values["root"], "train_family": trained[0], "test_family": tested[0], "limit": values["limit"]}


def _name_adapted(keypoints: KeypointsConfig) -> str:
    """``adapted-bovidae``: the folder of what is adapted on these categories."""
    words = re.findall(r"[a-z0-9]+", " ".join(keypoints.categories or [keypoints.source]).lower())
    return "-".join(["adapted", *words])[:80]


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
