"""What is taken out of a model's text, and what is refused because of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.build_config import VerificationConfig
from talking_points.descriptions.answer_text import extract_answer, visible
from talking_points.descriptions.backends.protocol import Completion, RequestError
from talking_points.descriptions.composition import compose_description
from talking_points.descriptions.prompts import as_data
from talking_points.descriptions.steps import answer_or_error, parse_answer
from talking_points.descriptions.verification import verify
from talking_points.escaping import encodable, is_invisible
from tests.descriptions.candidates import make_candidate

GOOD = "a smooth brown surface"


@pytest.mark.parametrize(
    "written",
    [
        f"<think>\nOkay, the user wants a phrase.\n</think>\n\n{GOOD}",
        f"Okay, the user wants a phrase.\n</think>\n\n{GOOD}",
        f"<THINK>a</THINK><think>b</think>{GOOD}",
        f"<think>a <think>b</think> c</think>{GOOD}",
        f"<think/>{GOOD}",
        f"<think></think>\n{GOOD}",
        f"{GOOD}\n<think>Did I say it right?",
        f"<thinking>x</thinking>{GOOD}",
        f"<thought>x</thought>{GOOD}",
        f"<reasoning>x</reasoning> {GOOD}",
        f"<reflection>x</reflection><answer>{GOOD}</answer>",
        f"<think>x</think><answer>{GOOD}",
        f"<seed:think>x</seed:think>{GOOD}",
        f"[THINK]x[/THINK]{GOOD}",
        f"◁think▷x◁/think▷{GOOD}",
        f"<unused94>thought\nx<unused95>{GOOD}",
        f"<|channel>thought\nx<channel|>{GOOD}<turn|>",
        f"{GOOD}\n<|channel>thought\nDid I say",
        f"<|im_start|>assistant\n{GOOD}<|im_end|>",
        f"<|turn>model\n<|channel>thought\nx<channel|>{GOOD}",
        f"<|begin_of_thought|>x<|end_of_thought|>\n<|begin_of_solution|>{GOOD}<|end_of_solution|>",
        f"<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>{GOOD}<|END_RESPONSE|>",
        f"<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}<|return|>",
        f"analysisThe user wants a phrase.assistantfinal{GOOD}",
        f"Here is my thought process: x\nHere is my response: {GOOD}",
        f"<think>x</think>```\n{GOOD}\n```",
        f'<think>x</think>"{GOOD}"',
        f'<think>{{"description": "no"}}</think>{{"description": "{GOOD}"}}',
        f'{{"description": "<think>x</think>{GOOD}"}}',
        f"<think_fast>x</think_fast>{GOOD}",
        f"<longcat_think>x</longcat_think>{GOOD}",
        f"<scratch_pad>x</scratch_pad>{GOOD}",
        f"<internal_monologue>x</internal_monologue>{GOOD}",
        f"\uff1cthink\uff1ex\uff1c/think\uff1e{GOOD}",
        f"<|inner_prefix|>x<|inner_suffix|>{GOOD}<|assistant_end|>",
        f"<|assistant_think|>x<|/assistant_think|>{GOOD}",
        f"<|think|>x<|end|><|begin|>assistant<|content|>{GOOD}<|end|>",
        f"Here are my reasoning steps:\nx\n[BEGIN FINAL RESPONSE]\n{GOOD}\n[END FINAL RESPONSE]\n<|end|>",
        f"<SUMMARY>x</SUMMARY><REASONING>x</REASONING>\n<CONCLUSION>{GOOD}</CONCLUSION>",
        f'<details type="reasoning" done="true"><summary>x</summary>x</details>{GOOD}',
        f"<think>x</think><|begin_of_box|>{GOOD}<|end_of_box|>",
        f"<|channel|>final <|constrain|>json<|message|>{GOOD}<|return|>",
        f"{GOOD}<|im_end|>\n<|im_start|>user\nAnd the next one?",
        f"<|begin_of_text|><|start_header_id|>assistant<|end_header_id|>\n\n{GOOD}<|eot_id|>",
        f"<\uff5cbegin\u2581of\u2581sentence\uff5c>{GOOD}<\uff5cend\u2581of\u2581sentence\uff5c>",
        f"<s>{GOOD}<pad><pad>",
        f"{GOOD}<|im_end|>",
        f"{GOOD}</s><|endoftext|>",
        f"{GOOD}<end_of_turn>\n",
        f"\ufeff{GOOD}",
        f'\ufeff{{"description": "{GOOD}"}}',
        GOOD.replace("brown", "br\u200bown"),
        GOOD.replace("brown", "br\u00adown"),
        GOOD.replace("brown", "\u202ebrown\u202c"),
        GOOD.replace("brown", "bro\0wn\a"),
        GOOD.replace("brown", "brown\ufffd"),
        GOOD.replace("brown", "brown\ufe0f\u2060"),
        GOOD.replace("brown", "\U000e0062brown\ue000"),
        GOOD.replace(" ", "\u00a0"),
        GOOD.replace(" ", "\u2581"),
        GOOD.replace(" ", "\u3000\u2028"),
        GOOD.replace("brown", "\U0001d41b\U0001d42b\U0001d428\U0001d430\U0001d427"),
        GOOD.replace("brown", "ｂｒｏｗｎ"),
    ],
)
def test_only_the_answer_is_left_in_characters_that_are_seen(written: str) -> None:
    assert parse_answer(written) == GOOD
    assert answer_or_error(Completion(written), step="local_caption") == GOOD


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("black &amp; white", "black & white"),
        ("black &amp;amp; white", "black & white"),
        ("a &lt;think&gt;x&lt;/think&gt; b", "a <think>x</think> b"),
        ("half an emoji \ud83d here", "half an emoji here"),
        ("a whole one \ud83d\ude00", "a whole one \U0001f600"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("a \ufb01ne grain", "a fine grain"),
        ("R&D; a b", "R&D; a b"),
    ],
)
def test_odd_characters_are_read_as_people_read_them(written: str, read: str) -> None:
    assert parse_answer(written) == read


@pytest.mark.parametrize("written", ["<think>x</think>", "<think>x", "\u200b\ufeff", "<|im_end|>", "[THINK]x"])
def test_reasoning_without_an_answer_is_no_answer(written: str) -> None:
    error = answer_or_error(Completion(written))
    assert isinstance(error, RequestError)
    assert (error.reason, error.retryable) == ("empty_answer", True)
    assert "reasoning or marks" in error.detail


@given(st.text(st.characters(codec=None)))
def test_every_text_becomes_one_that_files_take_and_eyes_see(text: str) -> None:
    encodable(text).encode()
    assert not any(map(is_invisible, visible(text)))
    assert visible(visible(text)) == visible(text)
    extract_answer(text).encode()
    as_data(text).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I cannot see the image.", "refusal"),
        ("As an AI, I do not see pictures.", "refusal"),
        ("Okay, the user wants a noun phrase. A brown surface.", "meta_talk"),
        ("Let me think about what is at the center.", "meta_talk"),
        ("**A brown** surface", "markup"),
        ("user: what is it? assistant: a brown surface", "markup"),
        ("<|im_start|>a brown surface", "markup"),
        ("a surface that is $\\approx$ brown", "characters"),
        ("a br\u043ewn surface", "characters"),
        ("a\u0120brown\u0120surface", "characters"),
        ("a brown spot a brown spot a brown spot a brown spot", "repetition"),
    ],
)
@pytest.mark.parametrize("step", ["object_caption", "local_caption", "generate"])
def test_captions_and_drafts_that_say_something_else_are_refused(text: str, reason: str, step: str) -> None:
    error = answer_or_error(Completion(text), step=step)  # type: ignore[arg-type]
    assert isinstance(error, RequestError)
    assert (error.reason, error.retryable) == (reason, True)
    assert answer_or_error(Completion(text), step="refine"), "descriptions go to the verifier, with its reasons"


@pytest.mark.parametrize(
    "text",
    [
        "The image shows a brown horse that stands on the left, facing the camera.",
        "a small, dark, round spot with a bright glint, likely the pupil of an eye",
        "A man in a user-friendly wheelchair; his okay sign is seen.",
        "a stripe, a stripe, and a stripe",
    ],
)
def test_captions_in_plain_words_are_taken(text: str) -> None:
    assert answer_or_error(Completion(text), step="object_caption") == text


@pytest.mark.parametrize(
    "mark",
    ["\ufeff", "\u200b", "\u00ad", "\u202e", "\0", "\a", "\ufffd", "&amp;", "$\\approx$", "\u2581", "\u0120"],
)
def test_the_verifier_refuses_what_cannot_be_read(mark: str) -> None:
    description = compose_description(make_candidate(), "a small, dark, round spot on smooth, pale fur", 0)
    assert verify(description, make_candidate(), VerificationConfig()).accepted
    verdict = verify(description.replace("pale", f"pa{mark}le"), make_candidate(), VerificationConfig())
    assert "characters" in {finding.code for finding in verdict.fatal}


@pytest.mark.parametrize("text", ["<|x|> " * 20_000 + "a", "<details " + "reasoning" * 20_000, " " * 60_000])
def test_a_model_that_repeats_itself_is_read_in_no_time(text: str) -> None:
    started = time.process_time()
    extract_answer(text)
    assert time.process_time() - started < 5, "in a time that grows with the square of the length"
