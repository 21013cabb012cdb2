"""Adapting any image-text-to-text model to write outlines: LoRA on its language model, supervised and by reward."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from talking_points.examples.points import LengthBuckets
from talking_points.examples.regions import RegionExample, RegionSet
from talking_points.grounding.grammar import read_lenient
from talking_points.grounding.rasters import iou, rasterise
from talking_points.models.image_text import ImageTextSegmenter
from talking_points.models.segmenter import Written
from talking_points.processes import process_state
from talking_points.training.policy import Answers
from talking_points.training.refinement import RefineTrainer
from talking_points.training.segmenter import answer_of, question_of, region_batches
from talking_points.training.segmenter_config import RefineStage, SegmenterConfig, SegmenterStage
from talking_points.training.trainer import StageTrainer


class RegionImages:
    """Images of regions, decoded once as long as ``most_bytes`` hold them."""

    def __init__(self, regions: RegionSet, most_bytes: float) -> None:
        self._regions = regions
        self._room = most_bytes
        self._kept: dict[str, Image.Image] = {}

    def of(self, examples: Sequence[RegionExample]) -> list[Image.Image]:
        """The image of every example."""
        found = {one.image: self._kept[one.image] for one in examples if one.image in self._kept}
        missing = {one.image for one in examples} - set(found)
        for digest, image in self._regions.images(missing) if missing else ():
            found[digest] = image
            size = 3 * image.width * image.height
            if size <= self._room:
                self._room -= size
                self._kept[digest] = image
        return [found[one.image] for one in examples]


def start_image_text(config: SegmenterConfig, start: str | Path, revision: str | None) -> ImageTextSegmenter:
    """The model that a training starts from, with its adapters in training and everything else frozen."""
    own = ImageTextSegmenter.from_pretrained(start, revision=revision, coordinates=config.coordinates)
    own.add_lora(config.lora_rank, config.lora_alpha, config.seed)
    for parameter in own.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # bfloat16 rounds small steps away
    own.model.to(process_state().device)
    return own


class ImageTextTrainer(StageTrainer):
    """The loss is the mean over the tokens of a batch's answers."""

    what = "questions"

    def __init__(
        self, own: ImageTextSegmenter, regions: RegionSet, images: RegionImages, phrasing: str, *others: Any
    ) -> None:
        self.own, self.images, self.phrasing, self.points = own, images, phrasing, regions
        super().__init__(own.model, regions.examples, *others)
        self.trained = own  # saves the adapters with the base that they belong to

    def batches(self) -> LengthBuckets:
        return region_batches(self.points.examples, self.stage, self.args)

    def batch_inputs(self, examples: Sequence[RegionExample]) -> dict[str, Any]:
        questions = [question_of(self.own, one, self.phrasing) for one in examples]
        answers = [answer_of(one, self.phrasing) for one in examples]
        inputs = self.own.encode_answered(self.images.of(examples), questions, answers)
        return {name: value.to(self.args.device) for name, value in inputs.items()}


class ImageTextPolicy:
    """A foreign model in reinforcement. The reference is the model with the adapters that it began with."""

    def __init__(
        self,
        own: ImageTextSegmenter,
        images: RegionImages,
        phrasing: str,
        temperature: float,
        max_new_tokens: int | None,
        reference: bool,
    ) -> None:
        self.own, self.images, self.phrasing = own, images, phrasing
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        trained = {name: value for name, value in own.model.named_parameters() if value.requires_grad}
        self._before = {name: deepcopy(value.detach()) for name, value in trained.items()} if reference else None

    @torch.no_grad()
    def sample(self, examples: Sequence[RegionExample], group: int) -> Answers:
        model, tokenizer = self.own.model, self.own.processor.tokenizer
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        rows: list[Tensor] = []
        for example in examples:
            inputs = self._encode([example])
            written = model.generate(
                **inputs, do_sample=True, temperature=self.temperature, top_k=0, top_p=1.0,
                suppress_tokens=self.own.never_written or None,
                num_return_sequences=group, max_new_tokens=self.max_new_tokens or self.own.max_new_tokens,
            )  # fmt: skip
            rows += list(written[:, inputs["input_ids"].shape[1] :])
        tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        over = torch.isin(tokens, torch.tensor(sorted(ends), device=tokens.device))
        mask = (over.cumsum(1) - over.long()) == 0
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answers(examples, group, Written(tokens, mask, [t.strip() for t in texts], over.any(1).tolist()))

    def log_probs(self, samples: Answers) -> Tensor:
        found = [self._score(samples, number) for number in range(len(samples.examples))]
        return torch.cat(found)

    @torch.no_grad()
    def reference(self, samples: Answers) -> Tensor:
        assert self._before is not None
        now = {}
        for name, parameter in self.own.model.named_parameters():
            if name in self._before:
                now[name] = parameter.detach().clone()
                parameter.copy_(self._before[name])
        try:
            return self.log_probs(samples)
        finally:
            for name, parameter in self.own.model.named_parameters():
                if name in now:
                    parameter.copy_(now[name])

    def _score(self, samples: Answers, number: int) -> Tensor:
        """Log-probabilities (G, T) of the answers to one question."""
        rows = slice(number * samples.group, (number + 1) * samples.group)
        tokens, mask = samples.tokens[rows], samples.mask[rows]
        inputs = self._encode([samples.examples[number]] * samples.group)
        length = inputs["input_ids"].shape[1]
        ids = torch.cat((inputs["input_ids"], tokens), 1)
        seen = torch.cat((inputs["attention_mask"], mask.to(inputs["attention_mask"])), 1)
        more = {}
        if "mm_token_type_ids" in inputs:
            kinds = inputs["mm_token_type_ids"]
            more["mm_token_type_ids"] = torch.cat((kinds, kinds.new_zeros(tokens.shape)), 1)
        rest = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask", *more)}
        logits = self.own.model(input_ids=ids, attention_mask=seen, **rest, **more).logits[:, length - 1 : -1]
        never = torch.tensor(self.own.never_written, dtype=torch.long, device=logits.device)
        logits = logits.index_fill(-1, never, -torch.inf)  # as when they were sampled
        chosen = -functional.cross_entropy(
            logits.float().flatten(0, 1) / self.temperature, tokens.flatten(), reduction="none"
        )
        return chosen.view(tokens.shape) * mask

    def _encode(self, examples: Sequence[RegionExample]) -> dict[str, Tensor]:
        questions = [question_of(self.own, one, self.phrasing) for one in examples]
        inputs = self.own.encode(self.images.of(examples), questions)
        return {name: value.to(self.own.model.device) for name, value in inputs.items()}


def train_image_text(
    own: ImageTextSegmenter,
    train: RegionSet,
    held_out: RegionSet | None,
    config: SegmenterStage,
    memory_gb: float,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Fine-tune the adapters and save them into ``output``; returns the last logged values."""
    metric = _running_overlap(own, held_out, config, config.phrasing, memory_gb, seed)
    images = RegionImages(train, memory_gb * 1e9)
    return ImageTextTrainer(own, train, images, config.phrasing, config, output, seed, metric).run()


def refine_image_text(
    own: ImageTextSegmenter,
    train: RegionSet,
    held_out: RegionSet | None,
    config: RefineStage,
    phrasing: str,
    memory_gb: float,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Refine the adapters by the reward of their answers; returns the last logged values."""
    output.mkdir(parents=True, exist_ok=True)
    images = RegionImages(train, memory_gb * 1e9)
    policy = ImageTextPolicy(own, images, phrasing, config.temperature, config.max_new_tokens, config.beta > 0)
    metric = _running_overlap(own, held_out, config, phrasing, memory_gb, seed)
    trainer = RefineTrainer(own.model, train, policy, config, output, seed, metric)
    trainer.trained = own  # saves the adapters with the base that they belong to
    return trainer.run()


def _running_overlap(
    own: ImageTextSegmenter, held_out: RegionSet | None, config: Any, phrasing: str, memory_gb: float, seed: int
) -> Any:
    """A function that gives the mean overlap in percent on some held-out questions for outlines."""
    if held_out is None:
        return None
    asked = held_out.subset(n for n, one in enumerate(held_out.examples) if one.kind.endswith("_to_mask"))
    if not len(asked):
        return None
    asked = asked.sample(config.eval_points, seed)
    images = RegionImages(asked, memory_gb * 1e9)

    def metric() -> float:
        examples = asked.examples
        texts = own.answer(images.of(examples), [question_of(own, one, phrasing) for one in examples])
        drawn = [read_lenient(t, scale=own.scale(*e.size)).outlines for e, t in zip(examples, texts, strict=True)]
        return 100 * float(np.mean([iou(e.mask, rasterise(d, *e.size)) for e, d in zip(examples, drawn, strict=True)]))

    return metric
