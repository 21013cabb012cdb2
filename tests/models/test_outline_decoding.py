"""Constrained decoding of outlines: whatever the scores are, what is written can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from talking_points.grounding.grammar import read_strict
from talking_points.models.outline_decoding import SHORTEST, OutlineDecoding
from talking_points.models.presets import train_tokenizer
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_presets import add_lattice, segmenter_config

STEPS = 8
Scores = Callable[[int, int], torch.Tensor]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = train_tokenizer(["the dog", "outline of"], 300)
    add_lattice(made, STEPS)
    return made


def write(tokenizer: PreTrainedTokenizerFast, scores: Scores, answers: int, limit: int) -> list[str]:
    """Answers of the best tokens that may follow, by the scores (answers, vocabulary) of each step."""
    size = len(tokenizer)
    end = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
    decoding = OutlineDecoding(tokenizer, STEPS, end, size, limit)
    written = torch.zeros(answers, 0, dtype=torch.long)
    for _ in range(limit):
        best = decoding(written, scores(answers, size)).max(1)
        assert best.values.isfinite().all(), "something can always follow"
        written = torch.cat((written, best.indices[:, None]), 1)
    assert torch.isin(written[:, -1], torch.tensor(end)).all(), "every answer ends before the limit"
    return tokenizer.batch_decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("limit", [SHORTEST, SHORTEST + 1, SHORTEST + 2, 24, 96])
@pytest.mark.parametrize("wish", ["anything", "one number", "numbers", "to end"])
def test_whatever_a_model_prefers_it_writes_outlines(tokenizer: PreTrainedTokenizerFast, wish: str, limit: int) -> None:
    generator = torch.Generator().manual_seed(limit)
    liked = torch.zeros(len(tokenizer))
    for token, number in tokenizer.get_vocab().items():
        liked[number] = {
            "anything": 0,
            "one number": 100 * ("0.250" in token),  # all points on one spot, or on a line
            "numbers": 100 * ("0." in token or "1.0" in token),
            "to end": 100 * ("]]]" in token or token == "<|im_end|>"),
        }[wish]
    texts = write(tokenizer, lambda n, size: liked + torch.randn(n, size, generator=generator), 40, limit)
    assert {read_strict(text).error for text in texts} == {None}
    if wish == "to end":
        assert {text.count("], [") for text in texts} == {2}, "three points"


def test_what_cannot_be_written_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=f"at least {SHORTEST} new tokens"):
        OutlineDecoding(tokenizer, STEPS, 0, len(tokenizer), SHORTEST - 1)
    with pytest.raises(ValueError, match="found none for some"):
        OutlineDecoding(tokenizer, STEPS + 1, 0, len(tokenizer), SHORTEST)


def test_a_model_that_was_never_trained_outlines_something(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = Segmenter(segmenter_config(tokenizer, 64, 4, STEPS))
    model.tokenizer = tokenizer
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    questions = [model.question("text_to_mask", expression="the dog")] * 3
    free = model.answer(images, questions, max_new_tokens=20)
    assert any(read_strict(text).error for text in free)
    for outlines in model.segment(images, ["the dog"] * 3, max_new_tokens=20):
        assert outlines.polygons
    held = model.outline(images, questions, max_new_tokens=20)
    assert all(read_strict(text).error is None for text in held)
    assert model.outline(images, questions, max_new_tokens=20, constrained=False) == free
