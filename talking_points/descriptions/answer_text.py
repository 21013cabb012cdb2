"""What a model's text must be freed of before anything is read out of it.

Three things reach an answer that nobody means to say: reasoning before it, marks that a tokenizer, a chat template or
an encoding left in it, and characters that nobody sees. Words must be the same for those who read them and for the
models that learn from them.
"""

from __future__ import annotations

import html
import re
import unicodedata

from talking_points.escaping import encodable, is_invisible

_REASONING_NAMES = (
    r"(?:\w{1,20}[:_])?(?:think|thinking|thought|thoughts|reasoning|reflection|analysis|scratch_?pad|rationale|monologue"
    r"|planning|cot)(?:_\w{1,60})?"
)
_OPENED = re.compile(
    rf"<{_REASONING_NAMES}(?:\s[^<>]*)?>|\[(?:think|thinking|reasoning)\]|◁think▷|<unused94>"
    r"|<\|(?:begin_of_thought|START_THINKING|inner_prefix|\w{0,20}think|thinking)\|>|<details\s[^<>]{0,200}?reasoning[^<>]{0,200}>"
    r"|(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?:analysis|commentary)\b[^<]*<\|message\|>"
    r"|<\|channel>\s*thought\b",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    rf"</{_REASONING_NAMES}\s*>|\[/(?:think|thinking|reasoning)\]|◁/think▷|<unused95>"
    r"|<\|(?:end_of_thought|END_THINKING|inner_suffix|/\w{0,20}think|/thinking)\|>|</details\s*>"
    r"|<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|<channel\|>"
    r"|<\|begin\|>\s*assistant\s*<\|content\|>|\[BEGIN FINAL RESPONSE\]",
    re.IGNORECASE,
)
_SPELLED_OUT = re.compile(
    r"^\s*(?:analysis.*?assistant\s*final|here(?:'s|’s| is) my thought process:.*?here(?:'s|’s| is) my response:)",
    re.IGNORECASE | re.DOTALL,
)
"""Marks that became words: special tokens that were decoded without their brackets, and models that say it."""
_EMPTY_TAG = re.compile(rf"<{_REASONING_NAMES}\s*/>", re.IGNORECASE)
_ANSWER = re.compile(
    r"<(?P<name>answer|final|final_answer|response|output|solution|conclusion)>(?P<inner>.*?)(?:</(?P=name)>|$)"
    r"|<\|(?P<mark>begin_of_solution|begin_of_box|START_RESPONSE)\|>(?P<marked>.*?)"
    r"(?:<\|(?:end_of_solution|end_of_box|END_RESPONSE)\|>|$)",
    re.IGNORECASE | re.DOTALL,
)
_TURN = r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|turn>)"
_LEFT_AT_THE_START = re.compile(
    rf"^(?:\s*(?:<s>|<bos>|<\|begin.of.(?:text|sentence)\|>|{_TURN}\s*(?:assistant|model)\b\s*(?:<\|end_header_id\|>)?))+"
)
"""The beginning of a text or of a turn, where a template does not write it and the model does."""
_END = (
    r"(?:<\|[^|<>\n]{1,40}\|>|</s>|<eos>|<pad>|<end_of_turn>|<turn\|>|<end_of_utterance>|\[EOS\]"
    r"|\[END FINAL RESPONSE\])"
)
"""An end of a turn that a server passes on as text."""
_LEFT_AT_THE_END = re.compile(rf"{_END}\Z")
_FURTHER_TURNS = re.compile(rf"{_END}\s{{0,20}}{_TURN}")
"""Where a model goes on with turns after its own."""
_LONGEST_END = 64

_PLAIN = re.compile(r"[\x20-\x7e\n]*")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")


def has_invisible(text: str) -> bool:
    """Whether any character of it is one that nobody sees."""
    return not _PLAIN.fullmatch(text) and any(map(is_invisible, text))


def visible(text: str) -> str:
    """The text as people see it: without invisible characters, in its usual letters; line breaks stay.

    Ligatures, characters of full width and letters of mathematical alphabets become those that they look like. Spaces
    of all kinds become spaces; the marks by which tokenizers write a space (U+2581) too.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_show_char(char) for char in unicodedata.normalize("NFC", encodable(text)))


def _show_char(char: str) -> str:
    if char in "\u2028\u2029\x85\r\v\f\x1c\x1d\x1e":
        return "\n"
    if char == "\t" or char == "\u2581" or unicodedata.category(char) == "Zs":
        return " "
    if is_invisible(char):
        return ""
    usual = "\uff01" <= char <= "\uff5e" or unicodedata.category(char)[0] == "L"
    return unicodedata.normalize("NFKC", char) if usual else char


def decode_entities(text: str) -> str:
    """HTML entities as the characters they stand for; an entity in an entity too."""
    for _ in range(2):
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    return text


def strip_reasoning(text: str) -> str:
    """What follows a model's reasoning, in any of the forms that are in use.

    A closing mark alone counts too: templates open the block in the prompt. A block that is never closed is all
    reasoning: what is left is the text before it.
    """
    text = _SPELLED_OUT.sub("", _EMPTY_TAG.sub("", text))
    ends = [found.end() for found in _CLOSED.finditer(text)]
    if ends:
        text = text[ends[-1] :]
    opened = _OPENED.search(text)
    if opened:
        text = text[: opened.start()]
    text = _without_ends(_LEFT_AT_THE_START.sub("", text))
    answer = _ANSWER.search(text)
    return (answer["inner"] if answer["inner"] is not None else answer["marked"]) if answer else text


def _without_ends(text: str) -> str:
    """A turn without the ends that were written as text, in a time that grows with their number alone."""
    further = _FURTHER_TURNS.search(text)
    text = text[: further.start()].rstrip() if further else text
    end = bare = len(text.rstrip())
    while found := _LEFT_AT_THE_END.search(text, max(0, end - _LONGEST_END), end):
        end = found.start()
        while end and text[end - 1].isspace():
            end -= 1
    return text if end == bare else text[:end]


def extract_answer(text: str) -> str:
    """The part of a model's text that is its answer, in characters that people see, with its line breaks."""
    text = strip_reasoning(visible(text))
    return visible(decode_entities(text)) if "&" in text else text
