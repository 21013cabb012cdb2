"""How every figure is drawn: in matplotlib's own style, and with texts as they stand.

A ``matplotlibrc`` of the working folder, which may start programs (``text.usetex``), changes no figure, and a "$" in a
name or a description is a "$": what stands between two of them is no formula.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

WORDS = 120
"""Words of a text that are drawn or compared; the time that more of them take has no bound."""
_CHARACTERS = 1200


def trust_no_matplotlibrc() -> None:
    """Let matplotlib, whoever imports it in this process, read no ``matplotlibrc`` of the working folder.

    It would while it is imported: wait for a pipe without end, and fail at what is no text.
    """
    if "matplotlib" not in sys.modules and not any(isinstance(finder, _Blinded) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Blinded())


class _Blinded(MetaPathFinder):
    """Finds matplotlib as others do; while it is loaded there is no such file."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "matplotlib":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_blindly(module: ModuleType) -> None:
            # matplotlib asks for the name as it stands, before all others, and has no setting that says where to look.
            exists = os.path.exists
            os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
            try:
                load(module)
            finally:
                os.path.exists = exists

        spec.loader.exec_module = load_blindly  # type: ignore[method-assign]
        return spec


@contextmanager
def plain_style(style: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Around the drawing of a figure; ``style`` are settings of matplotlib on top."""
    import matplotlib

    # The backend is chosen by who draws; asking for it here would start one.
    own = {name: value for name, value in dict.items(matplotlib.rcParamsDefault) if not name.startswith("backend")}
    with matplotlib.rc_context({**own, "text.parse_math": False, **(style or {})}):
        yield


def shorten(text: str) -> str:
    """The beginning of a text, with an ellipsis where it is longer than ``WORDS`` words or about ten lines."""
    words = text[: _CHARACTERS + 1].split(maxsplit=WORDS)
    if len(text) <= _CHARACTERS and len(words) <= WORDS:
        return text
    return " ".join(words[:WORDS])[:_CHARACTERS].rstrip() + " …"
