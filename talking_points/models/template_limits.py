"""What one step of a model's chat template may make, and all of its steps together.

A template is a program that somebody else wrote. The sandbox of transformers keeps it from the machine's files, but one
step can take all memory (``"a" * 10 ** 10``) or hold the interpreter for hours (``1.5 | round(10 ** 9)``), while which
nothing can end it. Here each step that makes something, or looks through something, is measured before it is done, and
the steps of loops and macros are counted.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEP = 1 << 22
"""Characters, or entries of a list, that one value may have; a prompt has thousands."""

ALL = 1 << 26
"""As many in all values of one rendering."""

STEPS = 1 << 21
"""Signs and words of a template that are worked through in one rendering, and entries that are looked through; a
conversation of a hundred messages takes some 100,000."""

_BITS = 1 << 16
_NUMBER = 1000
_WIDE = re.compile(r"\d{5,}|\*")
_ABSENT = ("lipsum", "pprint", "striptags", "urlize", "wordwrap", "xmlattr")
"""Filters that no conversation needs and that have no bound of their own."""


class _Left(threading.local):
    of_all: int | None = None
    steps: int = 0


_left = _Left()


@contextmanager
def one_rendering() -> Iterator[None]:
    """Around the rendering of templates in this thread: together they make no more than ``ALL``, in ``STEPS``."""
    before = _left.of_all, _left.steps
    _left.of_all, _left.steps = ALL, STEPS
    try:
        yield
    finally:
        _left.of_all, _left.steps = before


def bound_templates(module: Any = None) -> None:
    """Have a library that renders templates of models, by default transformers, measure their steps."""
    if module is None:
        from transformers.utils import chat_template_utils

        module = chat_template_utils
    if module.ImmutableSandboxedEnvironment is not BoundedEnvironment:
        module.ImmutableSandboxedEnvironment = BoundedEnvironment
        for compiled in (value for value in vars(module).values() if hasattr(value, "cache_clear")):
            compiled.cache_clear()


def _weigh(value: Any, known: dict[int, int] | None = None) -> int:
    """Characters and entries of a value, of what it holds too, as often as they would be written."""
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, list | tuple | dict | set | frozenset | range):
        return 1
    # What has two names counts twice and is looked at once: 60 lists, each the other twice, have 2 ** 60 entries.
    known = {} if known is None else known
    if isinstance(value, range):
        _stepped(len(value))
        return len(value)
    if id(value) not in known:
        _stepped(len(value))
        total = 1
        for item in chain(value, value.values()) if isinstance(value, dict) else value:
            total += _weigh(item, known)
            if total > STEP:
                break
        known[id(value)] = total
    return known[id(value)]


def _allow(size: int) -> None:
    """Take note of what is about to be made."""
    if size > STEP:
        raise SecurityError(f"a step of it would make more than {STEP:,} characters or entries")
    _charge(size)


def _charge(size: int) -> None:
    """Take note of what is about to be looked through."""
    if _left.of_all is not None:
        _left.of_all -= size
        if _left.of_all < 0:
            raise SecurityError(f"its steps make more than {ALL:,} characters or entries in all")


def _stepped(size: int) -> None:
    """Take note of a part of the template, of so many signs and words, that is about to be worked through."""
    if _left.of_all is not None:
        _left.steps -= size
        if _left.steps < 0:
            raise SecurityError(f"it takes more than {STEPS:,} steps")


def _charged(value: Any) -> Any:
    """What is about to be looked through."""
    _charge(_weigh(value))
    return value


def _counted(values: Iterable[Any], size: int) -> Iterator[Any]:
    """The values, one by one, for each of which a part of the template of this size is worked through."""
    for value in values:
        _stepped(size)
        yield value


def _weighed(value: Any) -> Any:
    _allow(_weigh(value))
    return value


def _written(value: Any) -> Any:
    """What is about to be written as text: of texts ``_concat`` takes note."""
    return value if isinstance(value, str) else _weighed(value)


def _concat(pieces: Iterable[str]) -> str:
    found, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > STEP:
            break
        found.append(piece)
    _allow(size)
    return "".join(found)


def _predict_operation(operator: str, left: Any, right: Any) -> int:
    if operator == "%":
        if isinstance(left, str | bytes) and _WIDE.search(str(left)):
            return STEP + 1
        return _weigh(left) * 2 + _weigh(right) if isinstance(left, str | bytes) else 0
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length() if operator == "*" else 0
        bits = left.bit_length() * max(right, 0) if operator == "**" else bits
        _stepped(max(left.bit_length(), right.bit_length()) >> 6)
        return STEP + 1 if bits > _BITS else 0
    if operator == "+":
        return _weigh(left) + _weigh(right)
    if operator == "*":
        count, repeated = (left, right) if isinstance(left, int) else (right, left)
        return _weigh(repeated) * count if isinstance(count, int) else 0
    return 0


def _predict_text(name: str, text: Any, arguments: list[Any]) -> int:
    """Of a method of a text, or the filter of the same name."""
    size = _weigh(text)
    numbers = [abs(value) for value in arguments if isinstance(value, int)]
    texts = [len(value) for value in arguments if isinstance(value, str)]
    if name == "replace" and len(texts) > 1:
        return size + (str(text).count(str(arguments[0])) * texts[1])
    if name == "join":
        return sum(size + _weigh(value) for value in arguments)
    if name == "translate":
        return size * max([1, *map(_weigh, arguments)])
    if name in ("format", "format_map"):
        return STEP + 1 if _WIDE.search(str(text)) or "{}}" in str(text) else size * 2 + sum(map(_weigh, arguments))
    if name in ("indent", "expandtabs", "tojson"):
        parts = str(text).count("\n") + str(text).count("\t") + 1 if isinstance(text, str) else size
        return size + parts * max([0, *numbers, *texts])
    return size + max([0, *numbers]) if name in ("center", "ljust", "rjust", "zfill") else size


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    passed = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    @wraps(function)
    def bounded(*arguments: Any, **named: Any) -> Any:
        if len(arguments) > passed and hasattr(arguments[passed], "__next__"):
            arguments = (*arguments[:passed], _counted(arguments[passed], 8), *arguments[passed + 1 :])
        given = [*arguments[passed:], *named.values()]
        if name == "join" and given:
            items = list(given[0]) if not isinstance(given[0], str) else given[0]
            arguments = (*arguments[:passed], items, *arguments[passed + 1 :])
            apart = sum(len(value) for value in given[1:] if isinstance(value, str))
            _allow(_weigh(items) + len(items) * apart)
        elif name in ("round", "batch", "slice", "truncate") and any(
            isinstance(value, int) and abs(value) > _NUMBER for value in given[1:]
        ):
            raise SecurityError(f"it calls '{name}' with a number beyond {_NUMBER:,}")
        elif name == "sum" and any(isinstance(value, list | tuple | str) for value in given[1:]):
            raise SecurityError("it sums what are no numbers")
        elif given:
            _allow(_predict_text(name, given[0], given[1:]))
        return function(*arguments, **named)

    return bounded


def _bounded_test(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def bounded(*arguments: Any, **named: Any) -> Any:
        for value in (*arguments, *named.values()):
            _charge(_weigh(value))
        return function(*arguments, **named)

    return bounded


class _Filters(dict[str, Callable[..., Any]]):
    """Filters that are measured, those too that a library adds later."""

    def __setitem__(self, name: str, function: Callable[..., Any]) -> None:
        super().__setitem__(name, _bounded_filter(name, function))


class _Generator(CodeGenerator):
    """Counts steps, and measures what is between signs: ``a ~ b``, ``[a, b]``, ``{a: b}``, ``a[1:]``, ``a in b``."""

    _loop: nodes.For | None = None

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        """The body of a loop, a macro, a branch: each time that it is worked through."""
        nodes = list(nodes)
        self.writeline(f"environment.stepped({1 + sum(map(_count, nodes))})")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        before, self._loop = self._loop, node
        super().visit_For(node, frame)
        self._loop = before

    def visit(self, node: nodes.Node, *arguments: Any, **named: Any) -> Any:
        """As of jinja2."""
        loop = self._loop
        if loop is None or loop.test is None or node is not loop.iter:
            return super().visit(node, *arguments, **named)
        self.write("environment.counted(")  # what the test leaves out has no body that is counted
        super().visit(node, *arguments, **named)
        self.write(f", {_count(loop.test)})")
        return None

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:  # noqa: N802
        self.write(f" {operators[node.op]} environment.charged(")
        self.visit(node.expr, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat_pieces((")
        for piece in node.nodes:
            self.visit(piece, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._measured(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._measured(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._measured(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            self._measured(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def _measured(self, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.weighed(")
        visit(node, frame)
        self.write(")")


def _count(node: nodes.Node) -> int:
    return 1 + sum(map(_count, node.iter_child_nodes()))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox that transformers renders templates in, in which no step makes more than ``STEP``."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%", "//"))
    concat = staticmethod(_concat)
    weighed = staticmethod(_weighed)
    charged = staticmethod(_charged)
    counted = staticmethod(_counted)
    stepped = staticmethod(_stepped)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        known, self.filters = self.filters, _Filters()
        for name, function in known.items():
            if name not in _ABSENT:
                self.filters[name] = function
        self.tests = {name: _bounded_test(test) for name, test in vars(self)["tests"].items()}
        self.globals.pop("lipsum", None)
        self.finalize = _written

    @staticmethod
    def concat_pieces(pieces: tuple[Any, ...]) -> str:
        """``a ~ b ~ c``."""
        _allow(sum(map(_weigh, pieces)))
        return "".join(map(str, pieces))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operation, measured before it is done."""
        _allow(_predict_operation(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N805
        """A call, measured before it is done where its function makes texts, and what it is given."""
        given = [*arguments, *named.values()]
        _stepped(8)
        _charge(_weigh(getattr(__obj, "__self__", None)))  # `long_list.count(1)`
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox has a format of its own
        if isinstance(method, BuiltinMethodType) and isinstance(method.__self__, str | bytes):
            _allow(_predict_text(method.__name__, method.__self__, given))
        elif given:
            number = max((value for value in given if isinstance(value, int)), default=0)  # `(1).to_bytes(10 ** 10)`
            _allow(max(number, sum(map(_weigh, given))))
        return super().call(__context, __obj, *arguments, **named)
