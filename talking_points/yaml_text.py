"""YAML as a configuration may be: small, shallow, every key once, every number finite.

PyYAML's safe loader runs no code, but it follows aliases that multiply, recurses until the stack ends, lets the last of
two equal keys win, and raises errors of Python for numbers and dates that it cannot build.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Values of a document after its aliases are filled in; the largest configuration of the project has some hundred."""

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLimitError(yaml.YAMLError):
    """A document that no configuration needs to be."""


def load_yaml(text: str) -> Any:
    """The value of a YAML document. Raises ``yaml.YAMLError`` for everything that is wrong with it."""
    if len(text) > MAX_CHARACTERS:
        raise YamlLimitError(f"expected at most {MAX_CHARACTERS:,} characters, found {len(text):,}")
    try:
        _check(text)
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise YamlLimitError(f"expected at most {MAX_DEPTH} levels") from error


def _check(text: str) -> None:
    """Raise ``YamlLimitError`` unless the document stays within the limits. Nothing is built for it."""
    anchored: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, Loader=_BASE):
        line = 1 + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, CollectionStartEvent):
            if len(open_nodes) == MAX_DEPTH:
                raise YamlLimitError(f"line {line}: expected at most {MAX_DEPTH} levels")
            open_nodes.append((event.anchor, values))
            if event.anchor:
                anchored.pop(event.anchor, None)
            values += 1
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                anchored[anchor] = values - before
        elif isinstance(event, ScalarEvent):
            values += 1
            if event.anchor:
                anchored[event.anchor] = 1
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes) and event.anchor not in anchored:
                raise YamlLimitError(f"line {line}: *{event.anchor} stands for something that it is part of")
            values += anchored.get(event.anchor or "", 1)
        if values > MAX_VALUES:
            raise YamlLimitError(f"line {line}: expected at most {MAX_VALUES:,} values with all aliases filled in")


class _Loader(_BASE):
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """As the base does, but two equal keys are an error; what a merge (``<<``) brings may be overridden."""
        if isinstance(node, yaml.MappingNode):
            seen: dict[Any, int] = {}
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                    continue
                name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
                if name in seen:
                    raise YamlLimitError(f"line {line}: '{key.value}' is set a second time, first in line {seen[name]}")
                seen[name] = line
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """As the base does; values that Python cannot build are errors of the document."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, ArithmeticError, TypeError, LookupError, AttributeError) as error:
            raise ConstructorError(None, None, f"cannot read this value: {error}", node.start_mark) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise ConstructorError(None, None, f"expected a finite number, found {node.value}", node.start_mark)
        return value


_INT, _FLOAT, _TIME = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
_EXPONENT = r"[eE][-+]?[0-9]+"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in (_INT, _FLOAT, _TIME)]
    for first, forms in _BASE.yaml_implicit_resolvers.items()
}
# Numbers as they look: 1e-5 is one; 010, 1:30 and 2024-10-21, of which YAML 1.1 makes 8, 90 and a date, are texts.
for _tag, _form in (
    (_INT, r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7]+)$"),
    (_FLOAT, rf"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9_]*)(?:{_EXPONENT})?$|[-+]?[0-9]+{_EXPONENT}$|[-+]?\.inf$|\.nan$"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_form, re.IGNORECASE), list("-+.0123456789"))
