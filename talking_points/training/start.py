"""The model that a training starts from: a checkpoint, or the tiny preset with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from talking_points.config import ConfigError
from talking_points.models.base import TalkingPointsModel
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.presets import tiny_config, train_tokenizer
from talking_points.tensor_files import load_tensors, save_tensors
from talking_points.training.config import StageConfig, TrainConfig
from talking_points.whole_files import advising

Model = TypeVar("Model", bound=TalkingPointsModel)


def start_model(
    kind: type[Model], config: TrainConfig, stage: StageConfig, texts: Sequence[str], vision: Path | None = None
) -> Model:
    """A model to train, with the stage's choices of ``TalkingPointsConfig``.

    ``texts`` are what the tiny preset's tokenizer is learnt from, ``vision`` is a file of ``save_vision``.
    Raises ``ConfigError`` for unknown choices, a paper preset without a checkpoint, and a tokenizer that does not fit.
    """
    unknown = [name for name in stage.model if name not in TalkingPointsConfig.__dataclass_fields__]
    if unknown:
        raise ConfigError(f"unknown settings of the model: {unknown}; see talking_points/models/configuration.py")
    if config.start:
        settings = kind.read_config(config.start, revision=config.start_revision)
        for name, value in stage.model.items():
            setattr(settings, name, value)
        model = kind.from_pretrained(config.start, config=settings, revision=config.start_revision)
    elif config.preset == "paper":
        raise ConfigError("the paper preset starts from OMG-LLaVA: set start to a converted release")
    else:
        tokenizer = train_tokenizer(sorted(texts), config.vocabulary_size)
        settings = tiny_config(tokenizer, config.image_size, config.stem_stride)
        for name, value in stage.model.items():
            setattr(settings, name, value)
        torch.manual_seed(config.seed)
        model = kind(settings)
        model.tokenizer = tokenizer
        # On a CPU the backward pass of plain products and softmax is the faster one.
        model.language_model.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
    check_tokenizer(model)
    if vision is not None:
        model.vision.load_state_dict(load_tensors(vision))
    return model


def check_tokenizer(model: TalkingPointsModel) -> None:
    """Refuse a tokenizer whose ids have no embedding, or whose special tokens are not those of the configuration."""
    tokenizer, config = model.text_tokenizer, model.config
    rows = config.text_config.vocab_size
    # <mark> and <region> are replaced before the look-up, so their ids may lie outside the table.
    ids = [index for token, index in tokenizer.get_vocab().items() if token not in ("<mark>", "<region>")]
    if max(ids) >= rows:
        raise ConfigError(
            f"the tokenizer has ids up to {max(ids)}, the model {rows} embeddings: they do not belong together"
        )
    for token, index in (("[SEG]", config.seg_token_id), ("<mark>", config.mark_token_id)):
        if tokenizer.convert_tokens_to_ids(token) != index:
            raise ConfigError(
                f"the tokenizer gives {token} the id {tokenizer.convert_tokens_to_ids(token)}, the model {index}: take "
                " the tokenizer that was saved with the model"
            )


def save_vision(model: TalkingPointsModel, path: Path) -> None:
    """Store a vision path that other models of the same preset start from.

    Raises ``TrainingStoppedError`` where it cannot be written.
    """
    with advising(str(path), "make room and run again to train it anew"):
        save_tensors({name: tensor.contiguous() for name, tensor in model.vision.state_dict().items()}, path)
