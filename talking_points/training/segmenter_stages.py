"""The stages of a segmenter's training: its small vision path, supervised fine-tuning, reinforcement."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from talking_points.config import ConfigError, fingerprint
from talking_points.examples.labelled_images import load_labelled_images
from talking_points.examples.regions import RegionSet, load_regions
from talking_points.instructions.rows import read_instructions
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_configuration import QUESTIONS
from talking_points.step_progress import follow_each
from talking_points.training.backbone import pretrain_backbone
from talking_points.training.image_text_adapters import refine_image_text, start_image_text, train_image_text
from talking_points.training.pretraining_state import BACKBONE_CHECKPOINT, forget_pretraining
from talking_points.training.refinement import refine_segmenter
from talking_points.training.segmenter import start_segmenter, train_segmenter
from talking_points.training.segmenter_config import SegmenterConfig
from talking_points.training.start import check_tokenizer, save_vision
from talking_points.training.vision_records import vision_records
from talking_points.whole_files import file_sha256

VISION = "vision.safetensors"


def instruction_data(config: SegmenterConfig) -> Any:
    """Names what is learnt from: the digests of the instruction dataset's files."""
    root = config.instructions.root
    if root is None:
        return None
    return fingerprint({file.name: file_sha256(file) for file in sorted(root.glob("data/*.parquet"))})


def pretrain_segmenter_vision(config: Any, folder: Path) -> dict[str, float]:
    """The backbone that a tiny segmenter starts from: it learns which object and part lies where."""
    model = start_segmenter(config, [])  # no text reaches the vision path
    vision = config.segmenter_vision
    held_out_images: set[str] = set()
    if not vision.separate and config.instructions.root is not None:
        rows = read_instructions(config.instructions.root, images=False)
        held_out_images = {row.image_sha256 for row in rows if row.split != "train"}
    seen = follow_each(vision_records(vision, held_out_images), "reading images for the vision path", unit="image")
    data = load_labelled_images(seen, config.image_size, stretch=model.config.image_frame == "stretched")
    random = np.random.default_rng(config.seed)
    order = random.permutation(len(data))
    held_out, train = (order[: len(data) // 20], order[len(data) // 20 :]) if len(data) >= 20 else (order, order)
    found = pretrain_backbone(model, data, vision, random, train, held_out, folder / BACKBONE_CHECKPOINT)
    save_vision(model, folder / VISION)
    forget_pretraining(folder)
    return found


def train_segmenter_stage(config: Any, folder: Path) -> dict[str, float]:
    """Supervised fine-tuning."""
    train, held_out = _regions(config, config.segmenter)
    if config.preset == "image_text":
        own = start_image_text(config, config.start, config.start_revision)
        return train_image_text(own, train, held_out, config.segmenter, config.memory_gb, folder, config.seed)
    words = {one.expression for one in train.examples}
    forms = [re.sub(r"\{\w+\}", "", form) for form in QUESTIONS.values()]
    short = config.segmenter.phrasing == "own"
    spoken = [text.partition("[")[0] for one in train.examples for text in (one.question, one.text)]
    vision = config.output / "vision" / VISION if config.segmenter_vision.backbone_steps else None
    model = start_segmenter(config, [*words, *(forms if short else spoken)], vision)
    return train_segmenter(model, train, held_out, config.segmenter, config.features, folder, config.seed)


def refine_segmenter_stage(config: Any, folder: Path) -> dict[str, float]:
    """Reinforcement of a trained segmenter."""
    train, held_out = _regions(config, config.refine)
    place = config.segmenter_path or config.output / "segmenter"
    if config.preset == "image_text":
        own = start_image_text(config, place, None)
        phrasing = config.segmenter.phrasing
        return refine_image_text(own, train, held_out, config.refine, phrasing, config.memory_gb, folder, config.seed)
    model = Segmenter.from_pretrained(place)
    check_tokenizer(model)
    phrasing = config.segmenter.phrasing
    return refine_segmenter(model, train, held_out, config.refine, phrasing, config.features, folder, config.seed)


def _regions(config: SegmenterConfig, stage: Any) -> tuple[RegionSet, RegionSet | None]:
    """What is trained on, and what the running metric is taken on: a share of the images, or the test split."""
    files = config.instructions
    if files.root is None:
        raise ConfigError("instructions.root: expected the folder of an instruction dataset, found none given")
    train = load_regions(files.root, "train", stage.kinds, files.limit, config.seed)
    if stage.validation:
        return train.hold_out(stage.validation)
    return train, None
