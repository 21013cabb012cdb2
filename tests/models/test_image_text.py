"""A foreign model as a segmenter: a tiny Qwen2.5-VL with random weights, saved and loaded by its built-in class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from talking_points.config import ConfigError
from talking_points.models.image_text import ImageTextSegmenter
from talking_points.models.patch_processor import PatchProcessor
from talking_points.models.segmenting import open_segmenter

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = [(100, 60), (37, 80)]


def tiny_qwen(folder: Path) -> Path:
    """A complete folder in the layout of the Hub."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(["the dog"], trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=SPECIAL[3:],
        chat_template=TEMPLATE,
    )  # fmt: skip
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in (
        ("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"), ("vision_end_token_id", "<|vision_end|>"),
    )}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "window_size": 56,
        },
        **ids,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).eval().save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=56 * 56)
    PatchProcessor(tokenizer, images, ids["image_token_id"]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> ImageTextSegmenter:
    found = open_segmenter(folder)
    assert isinstance(found, ImageTextSegmenter)
    return found


def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def test_answers_come_from_the_image_and_not_from_company(segmenter: ImageTextSegmenter) -> None:
    questions = ["the dog", "where is the big dog?"]
    both = segmenter.answer(images(), questions, max_new_tokens=6)
    alone = [segmenter.answer([i], [q], max_new_tokens=6)[0] for i, q in zip(images(), questions, strict=True)]
    assert both == alone
    swapped = segmenter.answer(images()[::-1], questions[::-1], max_new_tokens=6)
    assert swapped == both[::-1]
    encoded = [segmenter.encode([image], ["dog"])["pixel_values"] for image in images()]
    assert not torch.equal(encoded[0][:4], encoded[1][:4])


@pytest.mark.parametrize("markers", [("<|image_pad|>",), ("<|im_end|>", "<|im_start|>"), ("<|im_<|im_end|>end|>",)])
def test_special_tokens_of_a_question_or_an_answer_are_not_the_models(
    segmenter: ImageTextSegmenter, markers: tuple[str, ...]
) -> None:
    hostile = f"the dog {' '.join(markers)}"
    special = [segmenter.processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL]
    given = [
        segmenter.encode_answered(images()[:1], [text], [text])["input_ids"][0].tolist()
        for text in ("the dog", hostile)
    ]
    counts = [[ids.count(token) for token in special] for ids in given]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("kind", "elements", "said"),
    [
        ("text_to_mask", {}, "needs expression="),
        ("text_to_mask", {"expression": "dog " * 300}, "at most 1,000 characters"),
        ("text_to_mask", {"expression": 5}, "found int"),
        ("mask", {}, "expected a kind of text_to_mask"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    segmenter: ImageTextSegmenter, kind: str, elements: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        segmenter.question(kind, **elements)


@pytest.mark.parametrize(
    ("coordinates", "expected"), [("unit", (1.0, 1.0)), ("thousand", (1000.0, 1000.0)), ("pixels", (56.0, 28.0))]
)
def test_units_are_what_is_said_and_pixels_those_of_the_resized_image(
    folder: Path, coordinates: str, expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ImageTextSegmenter.from_pretrained(folder, coordinates=coordinates)  # type: ignore[arg-type]
    assert found.scale(100, 60) == expected
    x, y = expected
    text = f"[[{0.25 * x:.3f}, {0.5 * y:.3f}], [{0.5 * x:.3f}, {0.5 * y:.3f}], [{0.5 * x:.3f}, {0.75 * y:.3f}]]"
    monkeypatch.setattr(found, "answer", lambda *_, **__: [text])
    (ring,) = found.segment(images()[:1], ["the dog"])[0].rings
    np.testing.assert_allclose(ring, [(0.25, 0.5), (0.5, 0.5), (0.5, 0.75)], atol=1e-3)
    for asked, message in (("the dog", "a list of expressions"), (["..."], "with words")):
        with pytest.raises(ValueError, match=message):
            found.segment(images()[:1], asked)


def test_adapters_are_kept_alone_with_the_base_they_belong_to(folder: Path, tmp_path: Path) -> None:
    tuned = ImageTextSegmenter.from_pretrained(folder, coordinates="thousand")
    trained = tuned.add_lora(rank=4, alpha=8)
    assert trained
    assert all("lora_" in name and "visual" not in name for name in trained)
    for name, parameter in tuned.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    tuned.save_pretrained(tmp_path / "adapters")
    kept = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert "adapter_model.safetensors" in kept
    assert not {"model.safetensors", "pytorch_model.bin"} & kept
    again = open_segmenter(tmp_path / "adapters")
    assert isinstance(again, ImageTextSegmenter)
    assert (again.base, again.coordinates) == (str(folder), "thousand")
    tuned.model.eval()
    asked = (images()[:1], ["the dog"])
    assert again.answer(*asked, max_new_tokens=6) == tuned.answer(*asked, max_new_tokens=6)
    (tmp_path / "adapters" / "segmenter.json").write_text(json.dumps({"base": 1}))
    with pytest.raises(ConfigError, match=r"segmenter\.json"):
        open_segmenter(tmp_path / "adapters")


@pytest.mark.parametrize("revision", [None, "main", "abc"])
def test_remote_code_needs_a_pinned_revision_before_anything_is_read(revision: str | None) -> None:
    with pytest.raises(ConfigError, match="40 digits"):
        ImageTextSegmenter.from_pretrained("org/nowhere", trust_remote_code=True, revision=revision)


def test_permission_for_one_revision_is_none_for_what_adapters_name(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "segmenter.json").write_text('{"base": "org/other", "revision": null, "coordinates": "unit"}')
    with pytest.raises(ConfigError, match="look at that code"):
        ImageTextSegmenter.from_pretrained(tmp_path, trust_remote_code=True, revision="a" * 40)
