"""The Point Answerer: an image, a box and the name and description of a keypoint in, its place out, written as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talking_points.models.base import chunks, image_digest, same_length
from talking_points.models.capellm.conversation import Query, QueryError, Round
from talking_points.models.capellm.coordinates import format_point, parse_point
from talking_points.models.capellm.crops import Crop, clip_box, normalise
from talking_points.models.capellm.decoding import AnswerGrammar, Hypothesis, search
from talking_points.models.capellm.modeling import CapeLlmModel
from talking_points.models.capellm.reading import PackedReader, count_shared
from talking_points.models.omg_llava.image_processing import ImageInput, to_rgb

AnswerMode = Literal["greedy", "beam", "mean", "free"]
QueryLike = Query | str | tuple[str, str | None]
Box = Sequence[float]

FREE_TOKENS, FREE_BATCH = 13, 15
"""What the official code generates freely: so many tokens for each of so many keypoints at a time."""


MOST_ROWS = 256
"""Queries of one pass, each of which keeps the reading of its image: 10 GB of the 8B in bfloat16."""


@dataclass(frozen=True)
class Answers:
    """What was answered to N queries.

    points: (N, 2) float64, pixels of the images; infinite where a free answer was none.
    confidence: (N,), the geometric mean of the probabilities of x and of y given x; entropy: (N, 2) in nats; mass:
    (N,), the smallest share of probability on tokens of the grammar before the others were excluded: far below 1 the
    model has not learnt the format. All three are NaN for free answers. texts: the answers as written.
    """

    points: NDArray[np.float64]
    confidence: NDArray[np.float64]
    entropy: NDArray[np.float64]
    mass: NDArray[np.float64]
    texts: tuple[str, ...]

    @property
    def parsed(self) -> NDArray[np.bool_]:
        """Which answers are places, bool (N,)."""
        return np.asarray(np.isfinite(self.points).all(-1))


def _parts(owner: Sequence[int], instances: int, batch_size: int) -> Iterator[slice]:
    """Slices of at most ``batch_size`` instances with at most ``MOST_ROWS`` queries; one instance stays whole."""
    counts = Counter(owner)
    start = rows = 0
    for index in range(instances):
        if index > start and (index - start == batch_size or rows + counts[index] > MOST_ROWS):
            yield slice(start, index)
            start, rows = index, 0
        rows += counts[index]
    yield slice(start, instances)


@dataclass(frozen=True)
class _Instance:
    """One object of one image: what is cropped and read once."""

    image: ImageInput
    size: tuple[int, int]
    crop: Crop


class PointAnswerer(CapeLlmModel):
    """Finds named keypoints of objects of any category."""

    def answer(
        self,
        images: Sequence[ImageInput],
        queries: Sequence[QueryLike],
        boxes: Sequence[Box | None] | None = None,
        *,
        mode: AnswerMode = "greedy",
        beam: int = 5,
        batch_size: int = 8,
    ) -> NDArray[np.float64]:
        """Places of named keypoints: float array (N, 2), pixels of the original images, inside them.

        Args:
            images: one per query (PIL or uint8 array); equal ones with equal boxes are read once.
            queries: names, pairs of name and description, or ``Query`` objects.
            boxes: the object of each query, [x, y, width, height] in pixels; None for the whole image.
            mode: "greedy", "beam" and "mean" always give a place; "free" generates as the official code does and
                gives infinity where the text is none.
            batch_size: how many objects are read at a time; fewer where that would be more than 256 queries.
        """
        return self.answers(images, queries, boxes, mode=mode, beam=beam, batch_size=batch_size).points

    def answer_all(
        self, image: ImageInput, box: Box | None, queries: Sequence[QueryLike], *, mode: AnswerMode = "greedy"
    ) -> Answers:
        """Places of all ``queries`` on one object, in one pass behind one reading of its image."""
        same_length(queries=queries)
        return self.answers([image] * len(queries), queries, [box] * len(queries), mode=mode)

    @torch.no_grad()
    def answers(
        self,
        images: Sequence[ImageInput],
        queries: Sequence[QueryLike],
        boxes: Sequence[Box | None] | None = None,
        *,
        mode: AnswerMode = "greedy",
        beam: int = 5,
        batch_size: int = 8,
    ) -> Answers:
        """As ``answer``, with confidences, entropies and texts.

        Raises ``BoxError`` for a box that shows nothing of its image, ``QueryError`` for a name without words and
        for a text that is longer than the model reads (nothing is cut off), and ValueError for an unknown mode and for
        one thing in place of a list.
        """
        same_length(images=images, queries=queries, boxes=boxes)
        if mode not in get_args(AnswerMode):
            raise ValueError(f"expected a mode of {', '.join(get_args(AnswerMode))}, found {mode!r}")
        for setting, number in (("beam", beam), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"expected a {setting} of at least 1, found {number}")
        if not queries:
            return Answers(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2)), np.zeros(0), ())
        forbidden = [*self.text_tokenizer.all_special_tokens, self.end_text]
        asked = [Query.of(query).clean(forbidden) for query in queries]
        instances, owner = self._instances(images, boxes or [None] * len(images))
        was_training = self.training
        self.eval()
        try:
            found = _Found(len(asked))
            for part in _parts(owner, len(instances), batch_size):
                chosen = [number for number, index in enumerate(owner) if part.start <= index < part.stop]
                here = [asked[number] for number in chosen]
                rows = [owner[number] - part.start for number in chosen]
                answered = self._answer_batch(instances[part], here, rows, mode, beam)
                found.put(chosen, answered)
        finally:
            self.train(was_training)
        return found.place([instances[index] for index in owner])

    def _instances(
        self, images: Sequence[ImageInput], boxes: Sequence[Box | None]
    ) -> tuple[list[_Instance], list[int]]:
        """The different objects, and which of them each query is about."""
        digests = {id(image): image_digest(image) for image in {id(image): image for image in images}.values()}
        known: dict[tuple[str, tuple[float, ...]], int] = {}
        instances: list[_Instance] = []
        owner = []
        for image, box in zip(images, boxes, strict=True):
            size = (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size
            clipped = clip_box(box, *size)
            key = (digests[id(image)], clipped)
            if key not in known:
                known[key] = len(instances)
                crop = Crop.of_box(clipped, self.config.image_size, float(self.config.crop_padding))
                instances.append(_Instance(image, size, crop))
            owner.append(known[key])
        return instances, owner

    def encode_crops(self, instances: Sequence[_Instance]) -> Tensor:
        """Image tokens (B, N_v, D) of the objects' crops."""
        crops = [one.crop.warp(np.asarray(to_rgb(one.image))) for one in instances]
        pixels = normalise(crops, self.config.image_mean, self.config.image_std)
        return self.image_tokens(torch.from_numpy(pixels).to(self.device))

    def _answer_batch(
        self, instances: Sequence[_Instance], queries: Sequence[Query], rows: Sequence[int], mode: AnswerMode, beam: int
    ) -> list[_Answer]:
        images, prompts = self.encode_crops(instances), self._prompts(queries)
        if self.coordinate_head is not None:
            return self._regress(images, prompts, rows)
        if mode == "free":
            return self._free(images, prompts, rows)
        answered = self._decode(images, prompts, rows, mode, beam)
        if self.config.rounds == "cumulative":
            return self._cumulative(images, queries, rows, answered, mode, beam)
        return answered

    def _prompts(self, queries: Sequence[Query], histories: Sequence[Sequence[Round]] | None = None) -> list[list[int]]:
        """Token ids of every query behind its earlier rounds, all tokenised in one call."""
        template = self.template
        before = histories or [()] * len(queries)
        texts = [template.prompt(query, rounds) for query, rounds in zip(queries, before, strict=True)]
        prompts: list[list[int]] = self.text_tokenizer(texts, add_special_tokens=False)["input_ids"]
        for query, ids in zip(queries, prompts, strict=True):
            length = 1 + self.config.image_tokens + len(ids) + FREE_TOKENS
            if length > self.config.max_length:
                raise QueryError(
                    f"expected at most {self.config.max_length} tokens with the image and the answer, found {length} "
                    f"for {query.name[:60]!r}: shorten its name or description"
                )
        return prompts

    def _decode(
        self,
        images: Tensor,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        mode: Literal["greedy", "beam", "mean"],
        beam: int,
    ) -> list[_Answer]:
        shared = count_shared(prompts)
        head = torch.tensor(prompts[0][:shared], dtype=torch.long, device=images.device)
        reader = PackedReader(self.language_model, self.beginning(images, head), rows)
        found = search(self.grammar, [prompt[shared:] for prompt in prompts], reader.step, mode, beam)
        return [_Answer.of(self.grammar, one, mode, self.config.half_bin) for one in found]

    def _regress(self, images: Tensor, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> list[_Answer]:
        """Places by the coordinate head, from the end token behind every prompt."""
        assert self.coordinate_head is not None
        shared = count_shared(prompts)
        head = torch.tensor(prompts[0][:shared], dtype=torch.long, device=images.device)
        reader = PackedReader(self.language_model, self.beginning(images, head), rows)
        end = self.config.text_config.eos_token_id
        hidden = reader.read(range(len(prompts)), [[*prompt[shared:], end] for prompt in prompts])
        places = self.coordinate_head(hidden).clamp(0, 1).tolist()
        return [_Answer((x, y), format_point(min(x, 0.999), min(y, 0.999), self.config.decimals)) for x, y in places]

    def _cumulative(
        self,
        images: Tensor,
        queries: Sequence[Query],
        rows: Sequence[int],
        first: Sequence[_Answer],
        mode: Literal["greedy", "beam", "mean"],
        beam: int,
    ) -> list[_Answer]:
        """Ask again, the surest keypoint of each object first, behind the model's own answers to the last k - 1."""
        answers = list(first)
        history: dict[int, list[Round]] = {row: [] for row in rows}
        waiting = {row: [n for n, own in enumerate(rows) if own == row] for row in history}
        for row, numbers in waiting.items():
            waiting[row] = sorted(numbers, key=lambda number: -first[number].confidence)
        back = self.config.rounds_per_conversation - 1
        while any(waiting.values()):
            now = [(row, numbers.pop(0)) for row, numbers in waiting.items() if numbers]
            earlier = [history[row][-back:] if back else [] for row, _ in now]
            prompts = self._prompts([queries[number] for _, number in now], earlier)
            answered = self._decode(images, prompts, [row for row, _ in now], mode, beam)
            for (row, number), answer in zip(now, answered, strict=True):
                answers[number] = answer
                history[row].append(Round(queries[number], answer.text))
        return answers

    def _free(self, images: Tensor, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> list[_Answer]:
        """Generate answers as the official code does: every prompt with its image, left-padded, greedy."""
        answers = []
        for part in chunks(len(prompts), FREE_BATCH):
            ids, mask = self.pad_left(prompts[part])
            new = self.generate_free(images[list(rows[part])], ids, mask)
            for text in self.text_tokenizer.batch_decode(new, skip_special_tokens=False):
                point = parse_point(text, self.end_text)
                place = (math.inf, math.inf) if point is None else point
                answers.append(_Answer(place, text.split(self.end_text)[0].strip()))
        return answers

    def pad_left(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Prompts behind the begin token and the image's placeholders as ids (N, L) and mask (N, L)."""
        text = self.config.text_config
        head = [text.bos_token_id, *[self.config.image_token_id] * self.config.image_tokens]
        longest = max(map(len, prompts)) + len(head)
        ids = torch.full((len(prompts), longest), text.pad_token_id)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            whole = torch.tensor([*head, *prompt])
            ids[row, longest - len(whole) :] = whole
            mask[row, longest - len(whole) :] = 1
        return ids.to(self.device), mask.to(self.device)

    @torch.no_grad()
    def generate_free(self, images: Tensor, ids: Tensor, mask: Tensor, tokens: int = FREE_TOKENS) -> Tensor:
        """The likeliest next ``tokens`` behind ids (N, L) about image tokens (N, N_v, D): ids (N, tokens)."""
        text = self.config.text_config
        return torch.as_tensor(
            self.language_model.generate(
                inputs_embeds=self.splice(ids, images),
                attention_mask=mask,
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=text.eos_token_id,
                pad_token_id=text.pad_token_id,
            )
        )


@dataclass(frozen=True)
class _Answer:
    """A place in fractions of the crop, and how sure it is."""

    place: tuple[float, float]
    text: str
    confidence: float = math.nan
    entropy: tuple[float, float] = (math.nan, math.nan)
    mass: float = math.nan

    @classmethod
    def of(cls, grammar: AnswerGrammar, found: Hypothesis, mode: str, half_bin: bool) -> _Answer:
        count = 10**grammar.decimals
        x, y = found.numbers
        half = 0.5 if half_bin else 0.0
        place = found.expected if mode == "mean" else ((x + half) / count, (y + half) / count)
        return cls(place, grammar.text(x, y), math.exp(found.total / 2), found.entropy, found.mass)


class _Found:
    """Answers as they come in, in the order of the queries."""

    def __init__(self, count: int) -> None:
        self.answers: list[_Answer | None] = [None] * count

    def put(self, numbers: Sequence[int], answers: Sequence[_Answer]) -> None:
        for number, answer in zip(numbers, answers, strict=True):
            self.answers[number] = answer

    def place(self, instances: Sequence[_Instance]) -> Answers:
        """All answers, with places in pixels of the images, clipped to them."""
        answers = [answer for answer in self.answers if answer is not None]
        points = np.array([self._point(*pair) for pair in zip(answers, instances, strict=True)])
        return Answers(
            points,
            np.array([answer.confidence for answer in answers]),
            np.array([answer.entropy for answer in answers]),
            np.array([answer.mass for answer in answers]),
            tuple(answer.text for answer in answers),
        )

    @staticmethod
    def _point(answer: _Answer, instance: _Instance) -> NDArray[np.float64]:
        if not math.isfinite(answer.place[0]):
            return np.array(answer.place)
        (point,) = instance.crop.inverse([[part * instance.crop.size for part in answer.place]])
        return np.clip(point, 0, np.array(instance.size) - 1)
