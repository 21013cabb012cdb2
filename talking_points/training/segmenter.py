"""Supervised fine-tuning of the small segmenter: language-model loss on the answers to questions about regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talking_points.config import ConfigError
from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import ImageFeatures
from talking_points.examples.points import LengthBuckets
from talking_points.examples.regions import RegionExample, RegionSet
from talking_points.grounding.grammar import read_lenient
from talking_points.grounding.lattice import bare, snap_text
from talking_points.grounding.rasters import iou, rasterise
from talking_points.models.omg_llava.chat import Turn
from talking_points.models.presets import train_tokenizer
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_configuration import SegmenterConfig as ModelConfig
from talking_points.models.segmenter_presets import add_lattice, order_lattice, segmenter_config
from talking_points.models.segmenting import RegionModel
from talking_points.tensor_files import load_tensors
from talking_points.training.precision import prepare_to_train
from talking_points.training.segmenter_config import SegmenterConfig, SegmenterStage
from talking_points.training.start import check_tokenizer
from talking_points.training.trainer import ImageTrainer

RegionFeatures = ImageFeatures[RegionSet]


def question_of(model: RegionModel, example: RegionExample, phrasing: str) -> str:
    """What the model is asked: the row's question, or its own short one."""
    return example.question if phrasing == "rows" else model.question(example.kind, **example.elements())


def answer_of(example: RegionExample, phrasing: str) -> str:
    """What is to be answered: the row's text, or the bare list in it."""
    return example.text if phrasing == "rows" or example.kind.endswith("_to_text") else bare(example.text)


class SegmenterTrainer(ImageTrainer):
    """The loss is the mean over the tokens of a batch's answers."""

    what = "questions"
    config: SegmenterStage

    def __init__(self, *arguments: Any, phrasing: str, **named: Any) -> None:
        self.phrasing = phrasing
        super().__init__(*arguments, **named)

    def turn(self, example: RegionExample) -> Turn:
        model = self.features.model
        question = question_of(model, example, self.phrasing)
        turns: list[Turn] = model.turns([question], [answer_of(example, self.phrasing)])
        return turns[0]

    def batches(self) -> LengthBuckets:
        return region_batches(self.points.examples, self.stage, self.args)

    def inputs(self, examples: Sequence[RegionExample], features: RegionFeatures) -> dict[str, Any]:
        found, image_index = features.of_images(examples)
        return {"features": found, "image_index": image_index, "turns": self.turns(examples)}


def region_batches(examples: Sequence[RegionExample], stage: Any, arguments: Any) -> LengthBuckets:
    """Batches of questions with answers of like length."""
    return LengthBuckets(
        [len(one.text) for one in examples],
        stage.batch_size,
        arguments.seed,
        images=[one.image for one in examples],
        per_image=stage.points_per_image,
        process=arguments.process_index,
        processes=arguments.world_size,
    )


def start_segmenter(config: SegmenterConfig, texts: Sequence[str], vision: Path | None = None) -> Segmenter:
    """The model that a training starts from: a checkpoint, or the tiny preset with random weights.

    ``texts``: questions and words that the tiny preset's tokenizer is learnt from; ``vision``: a pretrained vision
    path. Raises ``ConfigError`` for unknown choices.
    """
    choices = config.segmenter.model
    unknown = [name for name in choices if name not in ModelConfig.__dataclass_fields__]
    if unknown:
        raise ConfigError(f"unknown settings of the model: {unknown}; see models/segmenter_configuration.py")
    if config.start:
        settings = Segmenter.read_config(config.start, revision=config.start_revision)
        for name, value in choices.items():
            setattr(settings, name, value)
        model = Segmenter.from_pretrained(config.start, config=settings, revision=config.start_revision)
    else:
        tokenizer = train_tokenizer(sorted(set(texts)), config.vocabulary_size)
        add_lattice(tokenizer, config.lattice)
        settings = segmenter_config(tokenizer, config.image_size, config.stem_stride, config.lattice)
        for name, value in choices.items():
            setattr(settings, name, value)
        torch.manual_seed(config.seed)
        model = Segmenter(settings)
        model.tokenizer = tokenizer
        order_lattice(model)
        # On a CPU the backward pass of plain products and softmax is the faster one.
        model.language_model.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
    check_tokenizer(model)
    if vision is not None:
        model.vision.load_state_dict(load_tensors(vision))
    return model


def drop_unwritable(model: Segmenter, regions: RegionSet) -> tuple[RegionSet, int]:
    """Without the regions that have no area on the model's lattice, and how many those are."""
    lattice = model.config.lattice
    if lattice is None:
        return regions, 0
    kept = [n for n, one in enumerate(regions.examples) if snap_text(one.text, lattice) is not None]
    return regions.subset(kept), len(regions) - len(kept)


def train_segmenter(
    model: Segmenter,
    train: RegionSet,
    held_out: RegionSet | None,
    config: SegmenterStage,
    features: FeatureConfig,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Train and save a segmenter into ``output``; returns the last logged values.

    The running metric is the mean overlap (gIoU) on ``held_out`` questions for outlines. Run again after an
    interruption it goes on from the last complete checkpoint.
    """
    prepare_to_train(model, config, seed)
    train, dropped = drop_unwritable(model, train)
    own = RegionFeatures(model, train, features)
    own.prepare()
    metric = None
    if held_out is not None:
        metric = running_overlap(model, held_out, features, config.phrasing, config.eval_points, seed)
    trainer = SegmenterTrainer(model, own, config, output, seed, metric, phrasing=config.phrasing)
    return {**trainer.run(), "without_area": float(dropped)}


def running_overlap(
    model: Segmenter, held_out: RegionSet, features: FeatureConfig, phrasing: str, count: int, seed: int
) -> Any:
    """A function that gives the mean overlap in percent on some held-out questions for outlines."""
    asked = held_out.subset(n for n, one in enumerate(held_out.examples) if one.kind.endswith("_to_mask"))
    if not len(asked):
        return None
    asked = asked.sample(count, seed)
    known = RegionFeatures(model, asked, features)
    known.prepare()

    def metric() -> float:
        found, index = known.of_images(asked.examples)
        questions = [question_of(model, one, phrasing) for one in asked.examples]
        texts = model.write(found, index, questions).texts
        pairs = zip(asked.examples, texts, strict=True)
        return 100 * float(np.mean([iou(e.mask, rasterise(read_lenient(t).outlines, *e.size)) for e, t in pairs]))

    return metric
