"""Prompts: Jinja templates in ``prompts/``, rendered in a sandbox from facts that are data, never instructions.

A template has two blocks, ``system`` and ``user``. Everything that reaches it passes through ``as_data`` first:
category names, captions and drafts come from datasets and models, and none of them may open a new turn, close a
quotation or carry template syntax.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from talking_points.descriptions.answer_text import visible
from talking_points.errors import InputError
from talking_points.regular_files import read_text

MAX_CHARACTERS = 1200
"""Longest text that one fact may bring into a prompt."""

_ROLE_MARKERS = re.compile(
    r"<[|｜][^<>]{0,60}[|｜]>|<</?SYS>>|</?[a-zA-Z][\w:-]{0,40}\s*/?>|<0x[0-9A-F]{2}>|(?-i:\[/?[A-Z][A-Z_ ]{2,30}\d*\])"
    r"|(?:^|(?<=\s))#{2,}|\b(?:system|user|assistant|human|instruction)\s*:",
    re.IGNORECASE,
)
_TEMPLATE_SYNTAX = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}|```+|`")


class PromptError(InputError):
    """A prompt template that does not exist, does not parse or asks for a fact that is not given."""


def as_data(value: Any, limit: int = MAX_CHARACTERS) -> Any:
    """Make a fact harmless: text becomes one line without role markers, template syntax or double quotes.

    Lists, tuples and mappings are treated member by member; numbers, booleans and None stay as they are.
    Text longer than ``limit`` characters is cut at a word and marked with an ellipsis.
    """
    if isinstance(value, Mapping):
        return {str(key): as_data(item, limit) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_data(item, limit) for item in value]
    if not isinstance(value, str):
        return value
    # Names and places are those of many rows, and captions are shown twice.
    return _usual_text(value, limit) if len(value) <= limit else _harmless_text(value, limit)


def _harmless_text(value: str, limit: int) -> str:
    text = visible(value)
    # Removing one marker can join the pieces of another: repeat until nothing changes.
    previous = ""
    while previous != text:
        previous, text = text, _TEMPLATE_SYNTAX.sub(" ", _ROLE_MARKERS.sub(" ", text))
    text = " ".join(text.replace('"', "'").split())
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"


_usual_text = lru_cache(maxsize=4096)(_harmless_text)


def render(name: str, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Render a prompt and return ``(system, user)``, both stripped.

    ``name`` is a shipped prompt (``generate``) or the path of a ``.jinja`` file. Raises ``PromptError`` when the
    template is missing or broken, or uses a fact that is not in ``facts``.
    """
    template = _template(name)
    context = template.new_context(as_data(facts))
    try:
        system, user = ("".join(template.blocks[block](context)).strip() for block in ("system", "user"))
    except jinja2.TemplateNotFound as error:
        raise PromptError(_explain_missing(name, str(error.name))) from error
    except KeyError as error:
        raise PromptError(f"prompt '{name}' has no block {error}: expected the blocks 'system' and 'user'") from error
    except (jinja2.UndefinedError, jinja2.exceptions.SecurityError) as error:
        known = ", ".join(sorted(facts))
        raise PromptError(f"prompt '{name}' cannot be rendered: {error}; facts given: {known}") from error
    return system, user


def prompt_digest(name: str) -> str:
    """sha256 (64 hex digits) of a prompt's text, with the texts of all templates it includes or extends."""
    digest = hashlib.sha256()
    pending, seen = [_file_name(name)], set()
    environment = _environment(_folder(name))
    while pending:
        file_name = pending.pop()
        if file_name in seen:
            continue
        seen.add(file_name)
        text = _read(file_name, _folder(name))
        if text is None:
            raise PromptError(_explain_missing(name, file_name))
        digest.update(f"{file_name}\x1f{text}\x1e".encode())
        try:
            references = meta.find_referenced_templates(environment.parse(text))
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(f"prompt '{name}', line {error.lineno}: {error.message}") from error
        # Sorted, so that the digest depends on the texts and not on the order in which a set is walked.
        pending += sorted((reference for reference in references if reference), reverse=True)
    return digest.hexdigest()


def _folder(name: str) -> Path | None:
    """The folder of a prompt given by path; None for a shipped one."""
    return Path(name).resolve().parent if name.endswith(".jinja") else None


def _file_name(name: str) -> str:
    return Path(name).name if name.endswith(".jinja") else f"{name}.jinja"


def _read(file_name: str, folder: Path | None) -> str | None:
    """A template's text from the given folder or else from the shipped prompts; None when neither has it."""
    if file_name != Path(file_name).name:
        return None
    if folder is not None and (folder / file_name).is_file():
        return read_text(folder / file_name)
    shipped = _shipped(file_name)
    return shipped.read_text(encoding="utf-8") if shipped.is_file() else None


@lru_cache(maxsize=64)
def _shipped(file_name: str) -> Traversable:
    return resources.files("prompts") / file_name


_States = tuple[tuple[int, int, int] | None, ...]


def _states(file_name: str, folder: Path | None) -> _States | None:
    """What changes when a template is edited, replaced or made: of both places where it may lie. None: not known."""
    places = [_shipped(file_name), *([folder / file_name] if folder else [])]
    paths = [place for place in places if isinstance(place, Path)]
    return tuple(map(_state, paths)) if len(paths) == len(places) else None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(maxsize=8)
def _environment(folder: Path | None) -> jinja2.Environment:
    def load(file_name: str) -> tuple[str, str, Callable[[], bool]] | None:
        states = _states(file_name, folder)
        text = _read(file_name, folder)
        # An edited prompt is read again, in a long-lived process too: its digest has changed with it.
        return None if text is None else (text, file_name, lambda: _is_unchanged(states, file_name, folder, text))

    return ImmutableSandboxedEnvironment(
        loader=jinja2.FunctionLoader(load),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _is_unchanged(states: _States | None, file_name: str, folder: Path | None, text: str) -> bool:
    return (states is not None and _states(file_name, folder) == states) or _read(file_name, folder) == text


def _explain_missing(name: str, file_name: str) -> str:
    shipped = sorted(
        entry.name.removesuffix(".jinja")
        for entry in resources.files("prompts").iterdir()
        if entry.name.endswith(".jinja")
    )
    return (
        f"no prompt '{file_name}' for '{name}': expected one of {', '.join(shipped)}, or the path of a .jinja file "
        "(files it includes must lie beside it)"
    )


def _template(name: str) -> jinja2.Template:
    try:
        return _environment(_folder(name)).get_template(_file_name(name))
    except jinja2.TemplateNotFound as error:
        raise PromptError(_explain_missing(name, str(error.name))) from error
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(f"prompt '{name}', line {error.lineno}: {error.message}") from error
