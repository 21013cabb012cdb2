"""Text from elsewhere, made safe for where it goes: a file, a terminal, Markdown, LaTeX.

HTML is escaped by its templates. What a terminal would obey and what would reorder a line is shown as ``\\x1b`` is.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters but tab and line feed, marks that change the direction of text, and halves of characters."""

LOST = "\ufffd"
"""What stands for a character that could not be read."""

_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\ufffc" + LOST)
"""Of a visible category, and yet nothing or a box is seen: fillers, blanks, what stands for a lost character."""

_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~]|(?<!\w)_|_(?!\w)|!(?=\[)")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_LINKS = re.compile(r"(?<=\w):(?=//)|(?<=www)\.|(?<=\w)@(?=\w)|(?<=mailto):|(?<=xmpp):", re.IGNORECASE)
"""Where some readers of Markdown make a link of bare text."""
_BLOCK = re.compile(r"^(?:([#+-](?=[\s#]|$)|[=-](?=[=\s-]*$))|(\d{1,9})([.)](?=\s|$)))")
"""What makes a heading, a list or a rule at the start of a line."""

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "%&_#${}"},
}  # fmt: skip


def encodable(text: str) -> str:
    """The text with halves of characters joined where both are there, and U+FFFD where one is missing.

    What comes out of JSON or a command line may hold lone surrogates, which no file and no table takes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def is_invisible(char: str) -> bool:
    """Whether nobody sees this character: control, format, private, unassigned, lost ones and fillers."""
    if char in "\n\t ":
        return False
    return (
        char in _INVISIBLE_LETTERS
        or unicodedata.category(char)[0] == "C"
        or "\ufe00" <= char <= "\ufe0f"  # variation selectors
        or "\U000e0100" <= char <= "\U000e01ef"
    )


def in_one_line(text: str) -> str:
    """The text as people see it on one line: every kind of blank is a space, invisible characters are taken out.

    A lost character (U+FFFD) stays one.
    """
    if not (text.isascii() and text.isprintable()):
        kept = (char for char in encodable(text) if char.isspace() or char == LOST or not is_invisible(char))
        text = "".join(kept)
    return " ".join(text.split())


def for_terminal(text: str) -> str:
    """Text in which only line feeds and tabs are left of what a terminal obeys."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def for_json(text: str) -> str:
    """A text of JSON for a terminal: the same value."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def for_markdown(text: object) -> str:
    """Text as itself, on one line, inside a paragraph or a table's cell: no link, image, HTML or further cell."""
    line = for_terminal(" ".join(str(text).split()))
    line = _MARKDOWN.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), line)
    line = _LINKS.sub(lambda found: f"&#{ord(found[0])};", line)
    return _BLOCK.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", line)


def for_code(text: object) -> str:
    """Text between two backticks of Markdown, on one line."""
    return for_terminal(" ".join(str(text).split())).replace("`", "'").replace("|", "\\|")


def fence_text(text: str, language: str = "") -> str:
    """Lines of text as a block of code of Markdown that nothing in them ends."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{for_terminal(text)}\n{fence}"


def for_latex(text: str) -> str:
    """Text as itself in LaTeX."""
    return "".join(_LATEX.get(character, character) for character in for_terminal(text))
