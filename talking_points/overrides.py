"""``key=value`` settings of the command line and of flows: the type of the setting says how the value is read.

A text is what was typed. Read as YAML first, ``tag=1.10`` would be a number, ``output=/tmp/run #2`` lose its end to a
comment, and ``12:30`` be seven hundred and fifty.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from talking_points.yaml_text import load_yaml

_SCALARS = (str, int, float, bool, Path, type(None))
_NOTHING = ("null", "~", "")


def read_value(model: type[BaseModel], keys: Sequence[str], text: str) -> Any:
    """The value of one setting, of which ``keys`` are the names on the way to it.

    Settings of one plain type get the text, which validation turns into a number or a truth value, and ``null`` where
    nothing is allowed; quotes round the whole text are taken off. Sections, lists and settings of any type are YAML.
    Raises ``yaml.YAMLError``.
    """
    kinds = list(_kinds_of(model, keys))
    if kinds and all(kind in _SCALARS or get_origin(kind) is Literal for kind in kinds):
        if type(None) in kinds and text.strip() in _NOTHING:
            return None
        return _unquote(text)
    value = load_yaml(text)
    # What is no list, section, number or truth value is a text, dates and cut-off comments included.
    return value if value is None or isinstance(value, bool | int | float | list | dict) else _unquote(text)


def settings_of(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """The names of the settings in the section that ``keys`` are the names on the way to; none for no section."""
    kinds = (kind for kind in _kinds_of(model, keys) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return [name for kind in kinds for name in kind.model_fields]


def _unquote(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        try:
            value = load_yaml(stripped)
        except yaml.YAMLError:
            return text
        return value if isinstance(value, str) else text
    return text


def _kinds_of(model: type[BaseModel], keys: Sequence[str]) -> Iterator[Any]:
    """The types that the setting may have; none for a setting that there is not."""
    kinds: list[Any] = [model]
    for key in keys:
        found: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
                found += _alternatives(kind.model_fields[key].annotation)
            elif get_origin(kind) is dict:
                found += _alternatives(get_args(kind)[1])
        kinds = found
    yield from kinds


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _alternatives(argument)
    else:
        yield annotation
