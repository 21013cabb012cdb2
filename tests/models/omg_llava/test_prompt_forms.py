"""What OMG-LLaVA is told about a point: both forms of its release, token by token, and what stays as it was."""

from __future__ import annotations

import json

import pytest

from talking_points.errors import InputError
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.chat import encode_turn
from talking_points.models.omg_llava.prompt_forms import captioner_prompt, point_prompt, prompt_options
from talking_points.models.omg_llava.stand_in import sentencepiece_model
from talking_points.models.omg_llava.tokenization import tokenizer_from_release
from talking_points.models.presets import tiny_config

IMAGE, MARK, START, END = -200, 304, 299, 298


@pytest.fixture
def tokenizer(tmp_path):
    """A release's tokenizer in small: 300 pieces, of which the last two are the chat's markers, and the added five."""
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(300))
    names = {"298": {"content": "<|im_end|>"}, "299": {"content": "<|im_start|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": names}))
    return tokenizer_from_release(tmp_path)


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("marks", "\nThere are some marks: Mark 1 ", ".\nWhere is it?"),
        (
            "region_caption",
            "\nCan you provide me with a detailed description of the region in the picture marked by region1 ",
            "?",
        ),
    ],
)
def test_both_official_forms_token_by_token(tokenizer, form, before, after) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    turn = encode_turn(tokenizer, f"<image>\n{point_prompt(form, 'Where is it?')}")
    expected = [1, START, *ids("user\n"), IMAGE, *ids(before), MARK, *ids(after), END, *ids("\n"), START]
    assert turn.ids.tolist() == [*expected, *ids("assistant\n")]
    assert turn.ids.tolist().count(MARK) == 1


def test_the_descriptor_is_asked_in_the_form_of_training() -> None:
    config = TalkingPointsConfig()
    assert config.prompt_form == "marks"
    assert "{" not in config.question


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"question": "Where?"}, "There are some marks: Mark 1 <mark>.\nWhere?"),
        ({"question": "Where?", "prompt_form": "region_caption"}, point_prompt("region_caption")),
        # Of a model that was trained before there were forms, and of the tiny preset.
        ({"question": "Look at {keypoint}!"}, "Look at <mark>!"),
        ({}, "<mark>"),
        ({"question": "Where?", "keypoint_tokens": 2}, "There are some marks: Mark 1 <mark><mark>.\nWhere?"),
    ],
)
def test_a_question_of_its_own_keeps_its_words(tokenizer, fields, asked) -> None:
    config = tiny_config(tokenizer, 64)
    for name, value in fields.items():
        setattr(config, name, value)
    model = PointDescriptor(config)
    model.tokenizer = tokenizer
    assert model.turns(1)[0].ids.tolist() == model.encode_turn(asked).ids.tolist()


def test_a_captioner_names_the_point_and_the_box_after_the_question() -> None:
    assert captioner_prompt("marks", "What?", box=True) == (
        "There are some marks: Mark 1 <mark>.\nWhat? The point meant is Mark 1. The object meant is region1 <region>."
    )
    assert "<region>" not in captioner_prompt("marks", "What?", box=False)
    assert captioner_prompt("region_caption", "What?", box=False) == point_prompt("region_caption")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("marks", True)),
        ({"box": False}, ("marks", False)),
        ({"prompt_form": "region_caption"}, ("region_caption", False)),
    ],
)
def test_options_choose_the_form(options, expected) -> None:
    assert prompt_options(options) == expected


def test_an_unknown_form_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="marks, region_caption, found 'points'"):
        prompt_options({"prompt_form": "points"})
