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
    options = getattr(command, "params", ())
    settings = any(option.name == "overrides" for option in options)
    option = getattr(error, "option_name", None) or next(iter(getattr(getattr(error, "param", None), "opts", ())), None)
    message = str(getattr(error, "message", ""))
    if "unexpected extra argument" in message:
        if settings:
            return f"; a configuration is named by --config FILE, a setting by {_SET}"
        return "; put what has spaces in it into quotes"
    if option is None:
        return ""
    if option in ("--point", "--box"):
        form = "X Y" if option == "--point" else "X Y W H"
        return f"; write numbers of pixels with spaces between them: {option} {form}"
    if any(option in one.opts for one in options):
        if option == "--model" and not message:
            return "Name the folder of a trained model or a repository on the Hub: --model FOLDER|ORG/NAME."
        return ""
    if re.match(r"-\.?\d", option):
        return "; a number below zero reads as an option: coordinates count from 0, put -- before what is meant so"
    long = [name for one in options for name in one.opts if name.startswith(f"-{option}")]
    if len(option) == 2 and long:
        return f"; is {' or '.join(long)} meant?"
    near = [name for name in getattr(error, "possibilities", None) or () if name != "--set"]
    if settings and not near:
        name = option[2:].replace("-", "_")
        # Only what may be a name is repeated: anything else may hold a secret.
        example = f", for example --set {name}=VALUE" if re.fullmatch(r"[a-z_][a-z0-9_.]{0,60}", name) else ""
        return f"; what a configuration holds is set by {_SET}{example}"
    return ""
