"""Training the Point Answerer: next-token cross-entropy on the answers of conversations about crops (CapeLLM)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from torch import Tensor

from talking_points.config import ConfigError
from talking_points.descriptions.keypoint_texts import Texts
from talking_points.examples.conversations import (
    Conversation,
    ConversationSettings,
    batch,
    converse,
    draw_crop,
    encode_conversation,
    groups_of,
)
from talking_points.examples.keypoints import PoseExample, PoseSet
from talking_points.examples.points import LengthBuckets
from talking_points.examples.pose_files import DecodedImages, pixels_of
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.configuration import AnswererConfig as ModelConfig
from talking_points.models.capellm.conversation import (
    IGNORED_LABEL,
    PARAPHRASES,
    STEP_QUESTION,
    Encoded,
    Query,
    Round,
    plain_text,
)
from talking_points.models.capellm.crops import normalise
from talking_points.models.capellm.presets import LANGUAGE_MODELS, VISION_MODEL, tiny_config, train_tokenizer
from talking_points.records import derive_seed
from talking_points.sources.keypoint_sets import readable
from talking_points.training.answerer_config import AnswererConfig, AnswererStage
from talking_points.training.answerer_inputs import check_choices
from talking_points.training.precision import prepare_to_train
from talking_points.training.trainer import StageTrainer
from talking_points.whole_files import read_json, write_json

_DROPPED: TypeAdapter[dict[str, int]] = TypeAdapter(
    Annotated[dict[str, Annotated[int, Field(ge=0, le=10**15)]], Field(strict=True)]
)


@dataclass(frozen=True)
class Asked:
    """An object and which of its conversations is asked; None for all of them about one crop."""

    example: PoseExample
    number: int | None

    @property
    def id(self) -> str:
        """Of the object in its source."""
        return self.example.id if self.number is None else f"{self.example.id}/{self.number}"


class AnswererTrainer(StageTrainer):
    """Trains on conversations that are drawn anew in every epoch, from (seed, epoch, object) alone."""

    what = "objects"

    def __init__(
        self,
        model: PointAnswerer,
        poses: PoseSet,
        texts: Texts,
        config: AnswererStage,
        output: Path,
        seed: int,
        metric: Any = None,
    ) -> None:
        self.own, self.texts, self.config = model, texts, config
        self.settings = conversation_settings(model.config, config, seed)
        self.images = DecodedImages(poses, config.memory_gb * 1e9)
        self.dropped: Counter[str] = Counter()
        asked: list[Asked] = []
        for example in poses.examples:
            count = len(groups_of(example, self.settings, 0))
            asked += [Asked(example, None)] if config.pack_instance else [Asked(example, n) for n in range(count)]
        super().__init__(model, asked, config, output, seed, metric)
        self._batches = LengthBuckets(
            [len(one.example.keypoints) for one in asked],
            config.batch_size,
            seed,
            process=self.args.process_index,
            processes=self.args.world_size,
        )

    def batches(self) -> LengthBuckets:
        return self._batches

    def read_weights(self, checkpoint: str, model: Any = None) -> None:
        """DINOv2's weights are saved under their published names, which ``from_pretrained`` alone turns into ours."""
        saved = PointAnswerer.from_pretrained(checkpoint)
        self.own.load_state_dict(saved.state_dict())
        counts = Path(checkpoint) / self._dropped_file
        if counts.is_file():
            self.dropped = Counter(read_json(counts, "remove the checkpoint to go on from the one before", _DROPPED))

    @property
    def _dropped_file(self) -> str:
        return f"dropped-{self.args.process_index}.json"

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with self._writing(f"the checkpoint in {folder}"):
            write_json(folder / self._dropped_file, dict(self.dropped))
        super()._save_checkpoint(*args, **kwargs)

    def all_dropped(self) -> Counter[str]:
        """What all processes have dropped together, from the first step on."""
        return sum(map(Counter, gather_object([dict(self.dropped)])), Counter[str]())

    def read_best(self, checkpoint: str) -> None:
        self.read_weights(checkpoint)

    def batch_inputs(self, examples: Sequence[Asked]) -> dict[str, Any]:
        """Crops and conversations. An object without a keypoint in its crop is seen from its own box instead."""
        texts = self._texts(examples[0])
        groups = [found for one in examples if (found := self.conversations(one, texts))]
        if not groups:
            raise ConfigError("none of the objects of a batch has a keypoint inside its box: expected some that do")
        crops = [] if self.own.config.blind else [one[0].pixels(self.images[one[0].example.image]) for one in groups]
        pixels = self._pixels(crops, len(groups))
        talks = [talk for group in groups for talk in group]
        rows = [self._encoded(talk) for talk in talks]
        config = self.own.config
        if self.config.pack_instance:
            index = torch.tensor([number for number, group in enumerate(groups) for _ in group])
            inputs = self._branches(pixels, rows, index)
            if config.attention_weight:
                cells = cells_of(talks, inputs["labels"].cpu().numpy(), config.image_size // config.patch_size)
                inputs["cells"] = self._tensor(cells)
            return inputs | self._places(talks)
        head = [config.text_config.bos_token_id, *[config.image_token_id] * config.image_tokens]
        filled = batch(rows, head, config.text_config.pad_token_id)
        arrays = {"input_ids": filled.ids, "labels": filled.labels, "attention_mask": filled.visible.astype(np.int64)}
        tensors = {name: self._tensor(value) for name, value in arrays.items()}
        return {"pixel_values": pixels, **tensors, **self._places(talks)}

    def _places(self, talks: Sequence[Conversation]) -> dict[str, Tensor]:
        """Where the keypoints are, for the coordinate head."""
        if self.own.config.head == "text":
            return {}
        return {"places": self._tensor(np.concatenate([talk.places for talk in talks]).astype(np.float32))}

    def conversations(self, one: Asked, texts: Texts) -> list[Conversation]:
        """What is asked about an object this time; nothing where no keypoint lies in its crop, which is counted."""
        epoch = self._batches.epoch
        groups = groups_of(one.example, self.settings, epoch)
        crop, flip = draw_crop(one.example, self.settings, epoch, -1 if one.number is None else one.number)
        found = []
        for number, chosen in enumerate(groups):
            if one.number in (None, number):
                conversation = converse(one.example, chosen, crop, flip, texts, self.settings.decimals)
                if conversation is not None:
                    found.append(conversation)
        if not found:
            self.dropped["nothing_to_ask"] += 1
        return found[: self.config.rounds_per_step]

    def _texts(self, first: Asked) -> Texts:
        """The descriptions of a batch: all, or none, so that short questions are not padded to long ones."""
        drawn = derive_seed(self.args.seed, self._batches.epoch, first.id, "texts") % 10_000
        return {} if drawn < self.config.name_only * 10_000 else self.texts

    def _encoded(self, conversation: Conversation) -> Encoded:
        model = self.own
        conversation = replace(conversation, rounds=self._worded(conversation))
        return encode_conversation(
            conversation, model.template, model.text_tokenizer, model.config.image_tokens, model.config.max_length
        )

    def _worded(self, conversation: Conversation) -> tuple[Round, ...]:
        """The rounds in the wording of this time: questions paraphrased, what the object is said first."""
        rounds, example = list(conversation.rounds), conversation.example
        if self.own.config.head == "token":
            rounds = [replace(one, answer="") for one in rounds]
        if self.config.paraphrase:
            wordings = (None, *PARAPHRASES)
            for number, one in enumerate(rounds):
                drawn = derive_seed(self.args.seed, self._batches.epoch, example.id, one.query.name, "wording")
                rounds[number] = replace(one, question=wordings[drawn % len(wordings)])
        if self.config.step_by_step:
            category = plain_text(readable(example.category_name), [self.own.end_text]).lower()
            rounds.insert(0, Round(Query(category), f"It is a {category}.", STEP_QUESTION))
        return tuple(rounds)

    def _pixels(self, crops: Sequence[Any], count: int) -> Tensor:
        config = self.own.config
        if not crops:
            return torch.zeros(count, 3, config.image_size, config.image_size, device=self.args.device)
        return self._tensor(normalise(crops, config.image_mean, config.image_std))

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self.args.device)

    def _branches(self, pixels: Tensor, rows: Sequence[Encoded], index: Tensor) -> dict[str, Any]:
        """One row a conversation behind a reading of its crop; the line break that all begin with is read with it."""
        length = max(len(one.ids) for one in rows) - 1
        ids = np.full((len(rows), length), self.own.config.text_config.pad_token_id, np.int64)
        labels = np.full((len(rows), length), IGNORED_LABEL, np.int64)
        for row, one in enumerate(rows):
            ids[row, : len(one.ids) - 1], labels[row, : len(one.ids) - 1] = one.ids[1:], one.labels[1:]
        head = torch.tensor(rows[0].ids[:1], device=self.args.device)
        return {
            "pixel_values": pixels,
            "head": head,
            "input_ids": self._tensor(ids),
            "labels": self._tensor(labels),
            "image_index": index.to(self.args.device),
        }


def cells_of(talks: Sequence[Conversation], labels: NDArray[np.int64], grid: int) -> NDArray[np.int64]:
    """Of every learnt token (R, L) the image token that shows its round's keypoint, -1 for the others.

    A round's answer is a run of learnt tokens; runs are in the order of the conversation's rounds, before which there
    may be others that are about no place.
    """
    learnt = labels != IGNORED_LABEL
    before = np.pad(learnt, ((0, 0), (1, 0)))[:, :-1]
    number = np.cumsum(learnt & ~before, axis=1) - 1
    cells = np.full(labels.shape, -1, np.int64)
    for row, talk in enumerate(talks):
        column, line = np.clip((talk.places * grid).astype(np.int64), 0, grid - 1).T
        elsewhere = number[row, -1] + 1 - len(talk.rounds)
        of_run = np.concatenate((np.full(elsewhere, -1), line * grid + column))
        cells[row, learnt[row]] = of_run[number[row, learnt[row]]]
    return cells


def conversation_settings(model: ModelConfig, config: AnswererStage, seed: int) -> ConversationSettings:
    """How conversations for a model are drawn."""
    return ConversationSettings(
        config.k, model.image_size, float(model.crop_padding), config.scale, config.rotation, config.rotation_share,
        config.flip, model.decimals, seed,
    )  # fmt: skip


def start_answerer(config: AnswererConfig, texts: Sequence[str]) -> PointAnswerer:
    """The model that a training starts from: a checkpoint, pretrained parts, or the tiny preset with random weights.

    ``texts`` are what the tiny preset's tokenizer is learnt from. Raises ``ConfigError`` for unknown choices.
    """
    stage = config.answerer
    chosen = {**stage.model, "rounds_per_conversation": stage.k, "blind": stage.blind}
    check_choices(stage)
    if stage.step_by_step and chosen.get("head") == "token":
        raise ConfigError("step_by_step: expected model.head text, found token, whose answers are places alone")
    torch.manual_seed(config.seed)
    model = _start(config, chosen, texts)
    if model.config.attention_weight:  # only the plain implementation says where it has looked
        model.language_model.set_attn_implementation("eager")
    return model


def _start(config: AnswererConfig, chosen: dict[str, Any], texts: Sequence[str]) -> PointAnswerer:
    stage = config.answerer
    if config.start:
        model = PointAnswerer.from_pretrained(config.start, revision=config.start_revision)
        for name, value in chosen.items():
            setattr(model.config, name, value)
        return model
    if config.preset == "tiny":
        tokenizer = train_tokenizer(sorted(set(texts)), config.vocabulary_size)
        settings = tiny_config(tokenizer, config.image_size, config.grid)
        for name, value in chosen.items():
            setattr(settings, name, value)
        model = PointAnswerer(settings)
        model.tokenizer = tokenizer
        # On a CPU the backward pass of plain products and softmax is the faster one.
        model.language_model.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
        return model
    from talking_points.models.capellm.conversion import assemble

    names = stage.vision_model or VISION_MODEL, stage.language_model or LANGUAGE_MODELS[config.preset]
    model = assemble(*names, ModelConfig(**chosen))
    freeze_or_free(model, stage)
    return model


def freeze_or_free(model: PointAnswerer, stage: AnswererStage) -> list[str]:
    """Which of the vision model's weights are trained, besides what ``prepare_training`` says; returns their names."""
    for name, parameter in model.vision.named_parameters():
        if stage.train_vision == "frozen" or (stage.train_vision == "all" and ".lora_" not in name):
            parameter.requires_grad_(stage.train_vision == "all")
    return [name for name, parameter in model.vision.named_parameters() if parameter.requires_grad]


def train_answerer(
    model: PointAnswerer,
    train: PoseSet,
    held_out: PoseSet | None,
    texts: Texts,
    config: AnswererStage,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Train and save an answerer into ``output``; returns the last logged values.

    The running metric is PCK@0.2 on ``held_out`` objects. Run again after an interruption it goes on from the last
    complete checkpoint.
    """
    prepare_to_train(model, config, seed)
    if config.train_vision != "adapters" and model.config.lora_active:
        freeze_or_free(model, config)
    model.config.trained_categories = sorted(set(train.categories.values()))
    metric = None
    if held_out is not None:
        chosen = held_out.subset(np.random.default_rng(seed).permutation(len(held_out))[: config.eval_points].tolist())

        def metric() -> float:
            return share_near(model, chosen, texts)

    trainer = AnswererTrainer(model, train, texts, config, output, seed, metric)
    values = trainer.run()
    return {**values, **{f"dropped_{name}": float(count) for name, count in trainer.all_dropped().items()}}


def share_near(model: PointAnswerer, poses: PoseSet, texts: Texts, threshold: float = 0.2) -> float:
    """PCK in percent, a mean over objects: the share of keypoints nearer than this part of the box's longer side."""
    shares = []
    for example, pixels in pixels_of(poses, poses.examples):
        asked = np.flatnonzero(example.visible).tolist()
        names = [example.keypoints.names[index] for index in asked]
        listed = example.keypoints.names
        queries = [Query(name, texts.get((example.keypoints.key, name)), listed) for name in names]
        found = model.answer_all(pixels, example.box, queries).points
        away = np.linalg.norm(found - example.points[asked], axis=1) / max(example.box[2:])
        shares.append(float((away < threshold).mean()))
    return 100 * float(np.mean(shares))
