"""Words of the prompts themselves: a weak model repeats what it was told instead of doing it."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

_RUN = 6
"""Words in a row that a description shares with the instructions by no chance."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BLOCK = re.compile(r"\{% block (system|user) %\}(.*?)\{% endblock %\}", re.DOTALL)
_TEMPLATE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_NO_INSTRUCTION = re.compile(r"^[A-Z][\w -]{2,14}:|^- |^Point: |\{\{")
"""Lines of a prompt's examples and facts, whose words an answer is meant to use."""
_LABEL = re.compile(r"\b(?:Object|Part|Point|Whole image|Close-up|Draft|Problems|Sentence)\s*:\s")


def find_echo(text: str) -> str | None:
    """The words of ``text`` that come from the shipped prompts' instructions or are a label of theirs, or None."""
    label = _LABEL.search(text)
    if label:
        return label[0].strip()
    words, known = _WORD.findall(text), _instructions()
    lower = [word.lower() for word in words]
    for start in range(len(words) - _RUN + 1):
        if tuple(lower[start : start + _RUN]) in known:
            return " ".join(words[start : start + _RUN])
    return None


@lru_cache(maxsize=1)
def _instructions() -> frozenset[tuple[str, ...]]:
    """All runs of ``_RUN`` words in the lines of the prompts that say what to do."""
    runs: set[tuple[str, ...]] = set()
    for file in resources.files("prompts").iterdir():
        if not file.name.endswith(".jinja"):
            continue
        for block, body in _BLOCK.findall(file.read_text(encoding="utf-8")):
            for line in body.splitlines():
                if block == "user" and _NO_INSTRUCTION.search(line):
                    continue
                # A quotation is an example of what an answer may hold.
                said = re.sub(r'"[^"]*"|\([^)]*\)', ' " ', _TEMPLATE.sub(' " ', line))
                for piece in said.split('"'):
                    words = [word.lower() for word in _WORD.findall(piece)]
                    runs |= {tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}
    return frozenset(runs)
