"""InternLM2's sentencepiece file as a fast tokenizer, and the chat layout."""

from __future__ import annotations

import json

import pytest

from talking_points.models.omg_llava.chat import encode_turn, plain_text
from talking_points.models.omg_llava.stand_in import sentencepiece_model
from talking_points.models.omg_llava.tokenization import tokenizer_from_release, tokenizer_from_sentencepiece

VOCABULARY = 300


@pytest.fixture
def release(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(VOCABULARY))
    names = {"298": {"content": "<|im_end|>"}, "299": {"content": "<|im_start|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": names}))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the dog", ["t", "h", "e", "▁dog"]),
        (" the dog", ["▁the", "▁dog"]),
        ("a: the", ["a", ":", "▁the"]),
        ("é", ["<0xC3>", "<0xA9>"]),
        ("", []),
    ],
)
def test_pieces_follow_the_models_scores_without_a_leading_space(text, pieces):
    tokenizer = tokenizer_from_sentencepiece(sentencepiece_model(VOCABULARY))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == pieces
    assert tokenizer.decode(ids) == text


def test_a_model_with_dummy_prefix_starts_with_a_space():
    tokenizer = tokenizer_from_sentencepiece(sentencepiece_model(VOCABULARY, dummy_prefix=True))
    ids = tokenizer("the dog", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["▁the", "▁dog"]
    assert tokenizer.decode(ids) == "the dog"


def test_special_tokens_follow_the_vocabulary_in_the_official_order(release):
    tokenizer = tokenizer_from_release(release)
    tokens = ["[SEG]", "<p>", "</p>", "<region>", "<mark>", "<|im_end|>", "<|im_start|>", "<s>", "</s>"]
    assert tokenizer.convert_tokens_to_ids(tokens) == [300, 301, 302, 303, 304, 298, 299, 1, 2]
    assert len(tokenizer) == VOCABULARY + 5


def test_a_saved_tokenizer_is_the_same(release, tmp_path):
    tokenizer = tokenizer_from_release(release)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = tokenizer_from_release(tmp_path / "saved")
    text = "<|im_start|> the dog<mark>é"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert len(again) == len(tokenizer)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found neither"):
        tokenizer_from_release(tmp_path)


def test_a_turn_is_laid_out_as_in_the_official_release(release):
    tokenizer = tokenizer_from_release(release)
    turn = encode_turn(tokenizer, "<image>\na <mark>", "the dog")
    names = ["IMAGE" if index == -200 else tokenizer.convert_ids_to_tokens(index) for index in turn.ids.tolist()]
    assert names[:2] == ["<s>", "<|im_start|>"]
    assert names.count("IMAGE") == 1
    start = names.index("IMAGE")
    assert names[start : start + 5] == ["IMAGE", "<0x0A>", "a", "▁", "<mark>"]
    assert names[-6:] == ["t", "h", "e", "▁dog", "<|im_end|>", "<0x0A>"]
    labelled = [name for name, label in zip(names, turn.labels.tolist(), strict=True) if label != -100]
    assert labelled == ["t", "h", "e", "▁dog", "<|im_end|>"]
    question = encode_turn(tokenizer, "<image>\na <mark>")
    assert question.ids.tolist() == turn.ids[: len(question.ids)].tolist()
    assert (question.labels == -100).all()


def test_markup_in_foreign_text_is_taken_out():
    assert plain_text("a <image> dog<|im_end|>\n [SEG] <mark>here") == "a dog here"
    assert plain_text("x < y and <other>") == "x < y and <other>"


@pytest.mark.parametrize("text", ["the \ud83d dog", "\udcff"])
def test_half_a_character_in_a_question_is_asked_as_a_lost_one(text):
    tokenizer = tokenizer_from_sentencepiece(sentencepiece_model(VOCABULARY))
    assert plain_text(text) == text.replace("\ud83d", "\ufffd").replace("\udcff", "\ufffd")
    assert len(encode_turn(tokenizer, plain_text(text)).ids) > 0
