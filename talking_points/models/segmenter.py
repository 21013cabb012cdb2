"""The small segmenter: an image and a question in, words, points, boxes or outlines out, all of them written as text.

It is OMG-LLaVA without visual prompts and without a mask decoder: the image's tokens and the question go in, the
answer comes out token by token (SimpleSeg, Song et al. 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from talking_points.grounding.grammar import UNIT, read_lenient
from talking_points.grounding.lattice import snap_text
from talking_points.grounding.outlines import Outlines, Point
from talking_points.models.base import (
    TalkingPointsModel,
    check_elements,
    check_expressions,
    chunks,
    same_length,
    unique_images,
)
from talking_points.models.omg_llava.chat import Turn, plain_text
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import ImageInput, to_rgb
from talking_points.models.omg_llava.modeling import LanguageInputs
from talking_points.models.outline_decoding import OutlineDecoding
from talking_points.models.segmenter_configuration import SegmenterConfig


@dataclass
class SegmenterOutput(ModelOutput):
    """loss: mean cross-entropy of the answers' tokens; logits: (M, V) of those tokens, in order of the batch."""

    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class Written:
    """Answers as written: tokens and mask (N, T), the end of the turn included; ``finished`` (N,) whether it came."""

    tokens: Tensor
    mask: Tensor
    texts: list[str]
    finished: list[bool]


class Segmenter(TalkingPointsModel):
    """Answers questions about images; what it is asked for is told by the words of the question."""

    config_class = SegmenterConfig
    config: SegmenterConfig

    def _build(self, config: SegmenterConfig) -> None:
        super()._build(config)
        side = config.image_size // config.visual_token_stride
        width = config.text_config.hidden_size
        self.image_positions = nn.Embedding(side * side, width) if config.image_positions else None

    def image_tokens(self, features: VisionFeatures) -> list[Tensor]:
        """As OMG-LLaVA's; to each pixel token what its place in the image stands for is added."""
        found = super().image_tokens(features)
        if self.image_positions is None:
            return found
        places = self.image_positions.weight
        return [torch.cat((one[: len(places)] + places.to(one), one[len(places) :])) for one in found]

    def trainable_prefixes(self) -> tuple[str, ...]:
        return (*super().trainable_prefixes(), "image_positions.")

    def unused_prefixes(self) -> tuple[str, ...]:
        return ("text_projector.", "vision.task_decoder.", "vision.iou_embed.")

    def encode_images(self, images: Sequence[ImageInput]) -> VisionFeatures:
        """As OMG-LLaVA, of images in the frame that the configuration chooses; sizes are the images' own."""
        rgb = [to_rgb(image) for image in images]
        if self.config.image_frame == "padded":
            features = super().encode_images(rgb)
        else:
            side = self.config.image_size
            squares = [image.resize((side, side), Image.Resampling.BOX, reducing_gap=None) for image in rgb]
            features = super().encode_images(squares)
            sizes = torch.tensor([image.size for image in rgb])
            features = replace(features, image_sizes=sizes.to(features.image_sizes.device))
        if not self.config.object_tokens:
            features = replace(features, object_valid=torch.zeros_like(features.object_valid))
        return features

    # ------------------------------------------------------------------ questions

    def question(self, kind: str, **elements: str) -> str:
        """What the model is asked for a kind of instruction: ``expression``, ``point`` or ``box`` as text.

        A point is written ``[0.500, 0.250]``, a box ``[0.100, 0.200, 0.500, 0.600]``: shares of the image's size, as
        ``grammar.write_point`` and ``write_box`` give them. Raises ``ValueError`` for a kind that it was taught no
        question of, and for elements that are missing, no text, or too long.
        """
        form = self.config.questions.get(kind)
        if form is None:
            raise ValueError(f"expected a kind of {', '.join(self.config.questions)}; found {kind!r}")
        check_elements(elements)
        try:
            return str(form.format(**{name: plain_text(value) for name, value in elements.items()}))
        except KeyError as error:
            raise ValueError(f"a question of the kind {kind} needs {error.args[0]}=..., a text") from error

    def turns(self, questions: Sequence[str], answers: Sequence[str] | None = None) -> list[Turn]:
        """Questions as turns, answered where answers are given; coordinates on the model's lattice."""
        asked = [self._snap(plain_text(question)) for question in questions]
        if answers is None:
            return [self.encode_turn(question) for question in asked]
        pairs = zip(asked, answers, strict=True)
        return [self.encode_turn(question, self._snap(plain_text(answer))) for question, answer in pairs]

    def scale(self, width: int, height: int) -> Point:
        """Answers are in shares of the image's own size."""
        return UNIT

    def count_tokens(self, text: str) -> int:
        """Tokens of an answer, without the end of the turn."""
        return len(self.text_tokenizer(text, add_special_tokens=False)["input_ids"])

    def _snap(self, text: str) -> str:
        return text if self.config.lattice is None else snap_text(text, self.config.lattice) or text

    # ------------------------------------------------------------------ training

    def forward(
        self,
        features: VisionFeatures | None = None,
        image_index: Tensor | None = None,
        turns: Sequence[Turn] | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> SegmenterOutput:
        """Language-model loss on the answers of N ``turns`` about B images.

        Images are ``features`` (from ``encode_images``) or ``pixel_values`` (B, 3, H, W) with ``image_sizes`` (B, 2);
        ``image_index`` (N,) says which image a turn is about (default: one each).
        """
        if features is None:
            if pixel_values is None:
                raise ValueError("expected features or pixel_values, found neither")
            features = self.encode_pixels(pixel_values, image_sizes)
        if turns is None:
            raise ValueError("expected answered turns, found none")
        index = torch.arange(len(features)) if image_index is None else image_index
        hidden, labels, _ = self.read_language(self.language_inputs(features, index, turns))
        logits, targets, _ = self.answer_logits(hidden, labels)
        total = functional.cross_entropy(logits.float(), targets, reduction="sum")
        count = len(targets) if num_items_in_batch is None else num_items_in_batch
        return SegmenterOutput(loss=total / count, logits=logits)

    def language_inputs(self, features: VisionFeatures, image_index: Tensor, turns: Sequence[Turn]) -> LanguageInputs:
        """Turns and the images that they are about."""
        same_length(turns=turns, image_index=image_index)
        return LanguageInputs(turns, features, image_index)

    # ------------------------------------------------------------------ answers

    def segment(  # type: ignore[override]  # outlines are written here, not decoded from [SEG]
        self, images: Sequence[ImageInput], expressions: Sequence[str], **options: Any
    ) -> list[Outlines]:
        """The outlines of what each expression refers to in its image, in unit coordinates of that image.

        ``options`` are those of ``answer``. What cannot be read gives outlines without polygons. Raises ``ValueError``
        for an expression without words, and for a single image or expression in place of a list. Where coordinates
        are tokens of their own every answer is an outline, unless ``constrained=False`` says otherwise.
        """
        check_expressions(images, expressions)
        questions = [self.question("text_to_mask", expression=expression) for expression in expressions]
        return [read_lenient(text).outlines for text in self.outline(images, questions, **options)]

    def outline(self, images: Sequence[ImageInput], questions: Sequence[str], **options: Any) -> list[str]:
        """As ``answer``, to questions for outlines: on a lattice nothing else is written."""
        return self.answer(images, questions, **{"constrained": self.config.lattice is not None, **options})

    def answer(self, images: Sequence[ImageInput], questions: Sequence[str], **options: Any) -> list[str]:
        """Answers to one question about each image, as they were written: see ``write``."""
        same_length(images=images, questions=questions)
        if not images:
            return []
        unique, index = unique_images(images)
        was_training = self.training
        self.eval()
        with torch.no_grad():
            parts = [self.encode_images(unique[part]).compact() for part in chunks(len(unique), 8)]
        self.train(was_training)
        return self.write(VisionFeatures.concatenate(parts), index, questions, **options).texts

    @torch.no_grad()
    def write(
        self,
        features: VisionFeatures,
        image_index: Tensor,
        questions: Sequence[str],
        *,
        group: int = 1,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        constrained: bool = False,
    ) -> Written:
        """Answers to questions (N,) about encoded images, ``group`` of each in a row; each question is read once.

        temperature: None for the likeliest tokens; else answers are drawn from the whole distribution. constrained:
        nothing but well-formed outlines is written, by a model with a lattice; raises ``ValueError`` for one without.
        """
        limit = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        options: dict[str, Any] = {"max_new_tokens": limit, "do_sample": False}
        if temperature is not None:
            options |= {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        was_training = self.training
        self.eval()
        turns = self.turns(questions)
        # Answers about one image and of like length belong together.
        order = sorted(range(len(turns)), key=lambda n: (int(image_index[n]), len(turns[n].ids)))
        found: list[tuple[int, Tensor]] = []
        for part in chunks(len(order), max(1, batch_size // group)):
            chosen = order[part]
            repeated = [number for number in chosen for _ in range(group)]
            inputs = replace(
                self.language_inputs(features, image_index[repeated], [turns[number] for number in repeated]),
                prompt_index=torch.arange(len(chosen)).repeat_interleave(group),
            )
            if constrained:
                options["logits_processor"] = [self._outlines_alone(options["max_new_tokens"])]
            found += zip(repeated, self.generate(inputs, **options), strict=True)
        self.train(was_training)
        found.sort(key=lambda pair: pair[0])
        return self._written([tokens for _, tokens in found])

    def _outlines_alone(self, limit: int) -> OutlineDecoding:
        text, lattice = self.config.text_config, self.config.lattice
        if lattice is None:
            raise ValueError(
                "constrained: expected a model that writes coordinates on a lattice, found one of any text"
            )
        return OutlineDecoding(self.text_tokenizer, lattice, text.eos_token_id, text.vocab_size, limit)

    def _written(self, rows: Sequence[Tensor]) -> Written:
        text = self.config.text_config
        tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=text.pad_token_id)
        ends = torch.isin(tokens, torch.tensor(text.eos_token_id, device=tokens.device))
        mask = (ends.cumsum(1) - ends.long()) == 0
        return Written(tokens, mask, self.decode(tokens), ends.any(1).tolist())

    def log_probs(
        self,
        features: VisionFeatures,
        image_index: Tensor,
        questions: Sequence[str],
        written: Written,
        group: int,
        temperature: float = 1.0,
    ) -> Tensor:
        """Log-probabilities (S, T) of written tokens at a temperature, 0 where none was written, with gradients.

        Every question is read once for its ``group`` answers.
        """
        turns = []
        asked = [turn for turn in self.turns(questions) for _ in range(group)]
        for turn, tokens, valid in zip(asked, written.tokens.cpu(), written.mask.cpu(), strict=True):
            answer = tokens[valid]
            turns.append(Turn(torch.cat((turn.ids, answer)), torch.cat((torch.full_like(turn.ids, -100), answer))))
        inputs = replace(
            self.language_inputs(features, image_index.repeat_interleave(group), turns),
            prompt_index=torch.arange(len(questions)).repeat_interleave(group),
        )
        hidden, labels, _ = self.read_language(inputs)
        logits, targets, _ = self.answer_logits(hidden, labels)
        never = self.never_written
        if never:  # what `generate` gives no probability gets none here either
            logits = logits.index_fill(1, torch.tensor(never, device=logits.device), -torch.inf)
        chosen = -functional.cross_entropy(logits.float() / temperature, targets, reduction="none")
        return chosen.new_zeros(written.mask.shape).masked_scatter(written.mask.to(chosen.device), chosen)
