"""The verifier: checks a description of any backend against its annotations and against good form.

Every problem is a ``Finding`` with a code of the table ``CODES`` and a sentence that a model can act upon. Fatal
findings send the description back or reject its row; the others become flags of the row.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from talking_points.build_config import VerificationConfig
from talking_points.candidates.directions import Directions, contradicts, contradicts_order
from talking_points.descriptions.answer_text import has_invisible
from talking_points.descriptions.echo import find_echo
from talking_points.descriptions.levels import Levels, claims_of, split_levels
from talking_points.descriptions.nouns import familiar_objects, object_names, part_names, say_object, say_part
from talking_points.records import Candidate

CODES: dict[str, tuple[bool, str]] = {
    # code: (fatal, what it means)
    "empty": (True, "no text at all"),
    "not_english": (True, "not Latin letters, or hardly any English function word"),
    "repetition": (True, "the same words over and over"),
    "too_short": (True, "fewer words than configured"),
    "too_long": (True, "more words than configured"),
    "too_many_sentences": (True, "more sentences than configured"),
    "unfinished": (True, "does not end with a full stop"),
    "refusal": (True, "declines the task or speaks as an assistant"),
    "meta_talk": (True, "speaks about the text, the prompt, the annotations or the crop"),
    "echo": (True, "repeats the words of the instructions"),
    "markup": (True, "markdown, JSON, tags, role names or line breaks"),
    "characters": (True, "characters that nobody sees, or that an encoding or a tokenizer left behind"),
    "coordinates": (True, "figures that look like coordinates, sizes or percentages"),
    "object_missing": (True, "never names the object"),
    "part_missing": (True, "never names the part"),
    "levels_out_of_order": (True, "names the part before the object"),
    "object_place_missing": (True, "level 1: no place of the object in the image"),
    "part_place_missing": (True, "level 2: no place of the part on the object"),
    "point_place_missing": (True, "level 3: no place of the point within the part"),
    "look_missing": (True, "level 4: nothing about the look of the point"),
    "object_place_wrong": (True, "level 1 contradicts the annotation"),
    "part_place_wrong": (True, "level 2 contradicts the annotation"),
    "point_place_wrong": (True, "level 3 contradicts the annotation"),
    "order_wrong": (True, "a rank among like objects that the annotation does not support"),
    "composed": (False, "composed by rules, after the model's own texts were refused"),
    "number": (False, "a figure that may be part of the scene, such as a house number"),
    "second_object": (False, "names an object of another kind"),
    "order_missing": (False, "several like objects, and the text does not say which"),
    "object_place_vague": (False, "level 1 leaves out a side that the annotation gives"),
    "part_place_vague": (False, "level 2 leaves out a side that the annotation gives"),
    "point_place_vague": (False, "level 3 leaves out a side that the annotation gives"),
}
"""Every code, whether it is fatal, and its meaning."""

_MIN_DISTINCT_TRIGRAMS = 0.5
"""Share of different word triples below which a text repeats itself; three equal places in one text keep 0.6."""
_MIN_LATIN = 0.9
_MIN_FUNCTION_WORDS = 0.15
"""Shares below which a text is not taken for English; descriptions of places have about half function words."""
_JUDGED_WORDS = 12
"""Texts of fewer words are too short to judge their language."""
_MIN_LOOK_WORDS = 2
"""Least number of words that describe the look of the point."""

_FUNCTION_WORDS = frozenset(
    (
        *("the", "a", "an", "of", "on", "in", "at", "to", "and", "or", "is", "are", "it", "its", "their", "with"),
        *("that", "which", "where", "this", "these", "within", "from", "by", "for", "as", "than"),
    )
)
_LOOKLESS_WORDS = frozenset(
    (
        *("region", "area", "spot", "point", "keypoint", "feature", "features", "featuring", "show", "shows"),
        *("showing", "surface", "around", "marked", "one", "can", "see", "seen", "there", "has", "have", "be"),
        *("left", "right", "top", "bottom", "upper", "lower", "center", "middle", "edge", "close", "near"),
        *("toward", "slightly", "image", "part", "located"),
    )
)
"""Words that say nothing about the look of the point."""

_REMEMBERED = 50_000
"""Verdicts that are kept, 16 bytes and a reference each; the paper's build asks for 21,000."""
_given: dict[bytes, Verdict] = {}

_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class _Pattern:
    """A pattern in lower case for texts of any case. Most texts match none of them: of plain ASCII, that is found out
    on the text in lower case, which takes a fraction of the time.
    """

    def __init__(self, pattern: str) -> None:
        self._any_case, self._lower = re.compile(pattern, re.IGNORECASE), re.compile(pattern)

    def search(self, text: str, lower: str) -> re.Match[str] | None:
        """``lower`` is the text in lower case."""
        if text.isascii() and self._lower.search(lower) is None:
            return None
        return self._any_case.search(text)


_REFUSAL = _Pattern(
    r"\bas an? (?:ai|language model|assistant)\b|\bi(?:'m| am) (?:sorry|unable|not able)\b"
    r"|\bi (?:cannot|can't|apologi[sz]e|do not|don't)\b|\bunfortunately\b|\bno image (?:is|was)\b"
    r"|\b(?:cannot|can not|can't) (?:be determined|determine|describe|see|provide)\b",
)
_META = _Pattern(
    r"\b(?:here(?:'s| is| are) (?:the|an?|your|my)\b|(?:sure|certainly|of course)[,!])"
    r"|^\s*(?:note|output|answer|description|sentence|refined|draft|final|response|caption)\b[^.]{0,25}:"
    r"|\b(?:note that\b"
    r"|(?:the|this|my|refined|revised|final) (?:description|sentence|draft|caption|annotations?|prompt)\b"
    r"|bounding box|segmentation|annotat|(?:close-up|local) caption|gaussian|cropped\b|the crop\b"
    r"|coordinates?\b|i hope\b|let me know\b|please\b)"
)
_MARKUP = _Pattern(
    r"[\n\r\t]|\*\*|__|```|^\s*(?:[-*#>]|\d+[.)])\s|[{}<>\[\]|]|\\[nu\"]|\b(?:user|assistant|system|human)\s*:",
)
_REASONING = _Pattern(
    r"\bthe user (?:wants?|asks?|asked|is asking|said|provided|gave)\b|^\s*(?:okay|ok|alright|hmm|wait)[,.:]"
    r"|\b(?:let(?:'s|\N{RIGHT SINGLE QUOTATION MARK}s| me) (?:think|see|look|start|check|describe|break|analy[sz]e)"
    r"|thinking process|step[- ]by[- ]step|i (?:need|have|should|will) (?:to )?(?:describe|write|answer))\b"
)
"""A model that thinks aloud; never the words of a description."""
_LEFT_BEHIND = _Pattern(
    r"&(?:#\w+|[a-z]+\d*);|\$[^$]*\\[^$]*\$|\\[a-z]{2,}|[\u2581\u0120\u010a]|<0x[0-9a-f]{2}>"
    r"|[a-z][\u0370-\u052f]|[\u0370-\u052f][a-z]",
)
"""Entities, formulas, tokenizers' marks, and words that mix Latin letters with look-alikes of other scripts."""
_COORDINATES = _Pattern(
    r"\(\s*\d|\d\s*,\s*\d|\d\s*(?:%|percent|px|pixels?|cm|mm|inch(?:es)?|degrees?|°|x\s*\d)|\b[xyuv]\s*[=:]\s*-?\d"
    r"|\d\.\d|\d{3,}|\bpercent(?:age)?\b|\bpixels?\b",
)
_LONGEST_RUN = 12
_REPEATED = re.compile(rf"\b(\w+)(?: \1){{2,}}\b|\b(\w+ \w+(?: \w+){{0,{_LONGEST_RUN - 2}}})(?: \2){{1,}}\b")
_LOOP = re.compile(r"\b(\w+(?: \w+){0,7})(?: \1){3,}\b")
_RUN_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?]+[\"”’')]*(?=\s+[A-Z\"“]|\s*$)")


@dataclass(frozen=True)
class Finding:
    """One problem: a code of ``CODES``, a sentence usable as feedback to a model, and whether it is fatal."""

    code: str
    detail: str
    fatal: bool


@dataclass(frozen=True)
class Verdict:
    """All findings about one description, the fatal ones first."""

    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        """Whether no finding is fatal."""
        return not any(finding.fatal for finding in self.findings)

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """What must be corrected."""
        return tuple(finding for finding in self.findings if finding.fatal)

    @property
    def flags(self) -> tuple[str, ...]:
        """Codes of the findings that do not reject the row, sorted."""
        return tuple(sorted({finding.code for finding in self.findings if not finding.fatal}))


def verify(description: str, candidate: Candidate, config: VerificationConfig) -> Verdict:
    """Check a description against its candidate's annotations and the configured form.

    The verdicts given last are remembered: a text that was refined is judged once more with all others, and what it is
    judged by has not changed.
    """
    key = hashlib.blake2b(f"{description}\0{candidate!r}\0{config!r}".encode("utf-8", "surrogatepass"), digest_size=16)
    found = _given.get(key.digest())
    if found is None:
        found = _given[key.digest()] = _judge(description, candidate, config)
        # The oldest go first; another thread may have been faster.
        while len(_given) > _REMEMBERED:
            _given.pop(next(iter(_given)), None)
    return found


def _judge(description: str, candidate: Candidate, config: VerificationConfig) -> Verdict:
    if not description.strip():
        return _verdict([("empty", "The answer is empty; write the sentence.")])
    found = [*_form(description, config)]
    if not any(code in {"not_english", "repetition"} for code, _ in found):
        found += _content(description, candidate, config)
    return _verdict(found)


def _verdict(found: list[tuple[str, str]]) -> Verdict:
    findings = [Finding(code, detail, CODES[code][0]) for code, detail in found]
    return Verdict(tuple(sorted(findings, key=lambda finding: not finding.fatal)))


def _form(text: str, config: VerificationConfig) -> Iterator[tuple[str, str]]:
    """Findings that need no annotation."""
    lower = text.lower()
    words = _LETTERS.findall(lower)
    letters = [char for char in text if char.isalpha()] if not text.isascii() else words
    latin = sum(char.isascii() for char in letters) / max(len(letters), 1)
    function = sum(word in _FUNCTION_WORDS for word in words) / max(len(words), 1)
    if latin < _MIN_LATIN or (len(words) >= _JUDGED_WORDS and function < _MIN_FUNCTION_WORDS):
        yield "not_english", "The text is not an English sentence; write one in plain English."
    if _repeats(words):
        yield "repetition", "The text repeats itself; say each thing once."
    if len(words) < config.min_words:
        yield "too_short", f"The text has {len(words)} words; write at least {config.min_words}."
    if len(words) > config.max_words:
        yield "too_long", f"The text has {len(words)} words; write at most {config.max_words}."
    sentences = len(_SENTENCE_END.findall(text.strip()))
    if sentences > config.max_sentences:
        allowed = "one sentence" if config.max_sentences == 1 else f"at most {config.max_sentences} sentences"
        yield "too_many_sentences", f"The text has {sentences} sentences; write {allowed}."
    if not re.search(r"[.!?][\"”’')]*$", text.strip()):
        yield "unfinished", "The text breaks off; finish the sentence with a full stop."
    if _REFUSAL.search(text, lower):
        yield "refusal", "The text declines the task or speaks as an assistant; write only the description."
    meta = _META.search(text, lower) or _REASONING.search(text, lower)
    if meta:
        yield (
            "meta_talk",
            f"The text speaks about itself or its making ('{meta[0].strip()}'); describe the picture only.",
        )
    echo = find_echo(text)
    if echo:
        yield "echo", f"The text repeats the instructions ('{echo}'); write only the sentence about the point."
    if has_invisible(text) or _LEFT_BEHIND.search(text, lower):
        yield "characters", "The text has characters that cannot be read; write it in plain letters."
    if _MARKUP.search(text, lower):
        yield "markup", "The text has markup, line breaks or role names; write one plain line."
    if _COORDINATES.search(text, lower):
        yield "coordinates", "The text has figures that look like coordinates, sizes or percentages; say it in words."
    elif re.search(r"\d", text):
        yield "number", "The text has a figure; leave it out unless it can be read in the picture."


def unfit_material(text: str, step: str) -> Finding | None:
    """Why a caption or a draft must not be built upon, or None; other steps' texts are judged by ``verify``.

    Only what no later step can tell from words about the image: refusals, thinking aloud, markup and roles, characters
    that cannot be read, loops. Names, places and form are the verifier's business, at the end.
    """
    if step not in ("object_caption", "local_caption", "generate"):
        return None
    lower = text.lower()
    checks: tuple[tuple[str, Callable[[], object]], ...] = (
        ("refusal", lambda: _REFUSAL.search(text, lower)),
        ("meta_talk", lambda: _REASONING.search(text, lower)),
        ("echo", lambda: find_echo(text)),
        ("characters", lambda: has_invisible(text) or _LEFT_BEHIND.search(text, lower)),
        ("markup", lambda: _MARKUP.search(text, lower)),
        ("repetition", lambda: _loops(_LETTERS.findall(lower))),
    )
    for code, finds in checks:
        if finds():
            return Finding(code, f"This {step.replace('_', ' ')} cannot be used: {CODES[code][1]}.", True)
    return None


def _loops(words: list[str]) -> bool:
    """A short run of words said four times in a row, or more often."""
    joined = " ".join(words)
    return _runs_again(joined) and _LOOP.search(joined) is not None


def _repeats(words: list[str]) -> bool:
    """Loops of a degenerate model: a run of the same words, or few different triples."""
    joined = " ".join(words)
    if _runs_again(joined) and _REPEATED.search(joined):
        return True
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(triples) >= 10 and len(set(triples)) < _MIN_DISTINCT_TRIGRAMS * len(triples)


def _runs_again(joined: str) -> bool:
    """Whether any run of up to ``_LONGEST_RUN`` words is said twice in a row: without that, neither pattern matches."""
    words = _RUN_WORD.findall(joined)
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        earlier = places.setdefault(word, [])
        for start in reversed(earlier):
            length = place - start
            if length > _LONGEST_RUN:
                break
            if words[start:place] == words[place : place + length]:
                return True
        earlier.append(place)
    return False


def _content(text: str, candidate: Candidate, config: VerificationConfig) -> Iterator[tuple[str, str]]:
    """Findings against the annotations: names, levels, places, order, other objects."""
    objects = object_names(candidate.object)
    parts = part_names(candidate.object, candidate.part)
    object_name, part_name = say_object(candidate.object), say_part(candidate.object, candidate.part)
    levels = split_levels(text, objects, parts)
    if not levels.object_named:
        yield "object_missing", f"The object is never named; call it '{object_name}'."
    if not levels.part_named:
        yield "part_missing", f"The part is never named; call it '{part_name}'."
    if not levels.named_in_order:
        yield (
            "levels_out_of_order",
            f"Go from coarse to fine: first the {object_name} and its place, then its {part_name}.",
        )
    if levels.object_named and levels.part_named and levels.named_in_order:
        names = tuple(sorted(objects | parts))
        yield from _places(levels, candidate, object_name, part_name, names)
        if levels.point_place is not None and config.require_look:
            yield from _look(levels, names)
        yield from _order(levels, candidate, object_name, names)
    others = sorted(familiar_objects(text) - objects - parts)
    if others:
        yield "second_object", f"The text names other objects ({', '.join(others)}); leave them out."


def _places(
    levels: Levels, candidate: Candidate, object_name: str, part_name: str, names: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for level, claimed, truth, subject in (
        ("object_place", levels.object_place, candidate.object_location, f"the {object_name} in the image"),
        ("part_place", levels.part_place, candidate.part_location, f"the {part_name} on the {object_name}"),
        ("point_place", levels.point_place, candidate.point_location, f"the point within the {part_name}"),
    ):
        if claimed is None:
            yield f"{level}_missing", f"The place of {subject} is missing; the annotation says: {truth}."
            continue
        claims, true = claims_of(claimed, names), claims_of(truth, names)
        if contradicts(claims, true):
            yield f"{level}_wrong", f"The place of {subject} is wrong; the annotation says: {truth}."
        elif _leaves_out(claims, true):
            yield f"{level}_vague", f"The place of {subject} is incomplete; the annotation says: {truth}."


def _leaves_out(claims: Directions, true: Directions) -> bool:
    """Whether an axis that the annotation places off the center is not spoken of."""
    sides = {"left", "right", "top", "bottom"}
    return any(
        bool(annotated & sides) and not said
        for annotated, said in ((true.horizontal, claims.horizontal), (true.vertical, claims.vertical))
    )


def _look(levels: Levels, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    named = {word for name in names for word in name.split()}
    words = [
        word
        for word in _LETTERS.findall(levels.look or "")
        if word not in named and word not in _FUNCTION_WORDS and word not in _LOOKLESS_WORDS
    ]
    if len(words) < _MIN_LOOK_WORDS:
        yield (
            "look_missing",
            "What the image looks like around the point is missing; end with its color, shape or texture.",
        )


def _order(levels: Levels, candidate: Candidate, object_name: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """A rank may only be claimed where instances can be told apart, and must then be the true one."""
    claims = claims_of(levels.object_place or "", names)
    known = candidate.instance_exact and candidate.instance_count > 1
    if claims.ordinals and not known:
        yield "order_wrong", f"Nothing is known about an order of several {object_name} objects; leave the rank out."
    elif contradicts_order(claims, candidate.instance_index, candidate.instance_count):
        rank = f"number {candidate.instance_index + 1} of {candidate.instance_count} from the left"
        yield "order_wrong", f"The rank of the {object_name} is wrong; it is {rank}."
    elif known and not claims.ordinals:
        yield "order_missing", f"There are several; say which one: number {candidate.instance_index + 1} from the left."
