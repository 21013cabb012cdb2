"""What to do about a command line that cannot be read: the parser itself says only what it stumbled over."""

from __future__ import annotations

import os
import re
from typing import Any

_SET = "--set KEY=VALUE"


def at_home(words: list[str]) -> list[str]:
    """The words with ``~`` in ``--option=~/folder`` filled in, which shells do for a word of its own alone.

    Taken as it is, it would name a folder '~' here, and whoever removed that might remove the home instead.
    """
    return [_expand(word) if re.match(r"--[\w-]+=~", word) else word for word in words]


def _expand(word: str) -> str:
    option, _, path = word.partition("=")
    return f"{option}={os.path.expanduser(path)}"  # noqa: PTH111  # what is no home is left as it is


def advice(error: Any) -> str:
    """What to do, to be put behind the message of a usage error; empty where the message says enough."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    settings = any(option.name == "overrides" for option in getattr(command, "params", ()))
    option = getattr(error, "option_name", None)
    if option is not None:
        if re.match(r"-\.?\d", option):
            return "; a number below zero reads as an option: coordinates count from 0, put -- before what is meant so"
        near = [name for name in getattr(error, "possibilities", None) or () if name != "--set"]
        if settings and not near and option.startswith("--"):
            name = option.lstrip("-").replace("-", "_")
            # Only what may be a name is repeated: anything else may hold a secret.
            example = f", for example --set {name}=VALUE" if re.fullmatch(r"[a-z_][a-z0-9_.]{0,60}", name) else ""
            return f"; what a configuration holds is set by {_SET}{example}"
    elif "unexpected extra argument" in str(getattr(error, "message", "")):
        if settings:
            return f"; a configuration is named by --config FILE, a setting by {_SET}"
        return "; put what has spaces in it into quotes"
    return ""
