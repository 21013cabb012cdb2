"""Configurations are a YAML file and ``key=value`` overrides, validated as a whole before anything expensive starts.

``fingerprint`` is what cache keys are made of.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from talking_points.errors import InputError
from talking_points.overrides import read_value, settings_of
from talking_points.redaction import hide_secrets, protect_settings, redact, unseal
from talking_points.regular_files import read_text
from talking_points.shipped import CONFIGS, config_names, find_config, shipped_config
from talking_points.units import counted
from talking_points.yaml_text import load_yaml


class ConfigError(InputError):
    """The configuration cannot be used: says what was expected, what was found, what to do."""

    strangers: tuple[str, ...] = ()
    """All settings of a file that holds some which there are not: perhaps another command takes it."""


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``, 16 hex digits."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def list_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ, with both values, for messages to people."""
    differences: list[str] = []
    for key in sorted(set(old) | set(new)):
        name, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            differences += list_changes(before, after, f"{name}.")
        elif before != after:
            differences.append(f"{name}: {json.dumps(before)} -> {json.dumps(after)}")
    return differences


Loaded = TypeVar("Loaded", bound=Section)


def load_config(
    model: type[Loaded], path: str | Path | None = None, overrides: Iterable[str] = (), **values: Any
) -> Loaded:
    """Read a YAML file, apply ``a.b=value`` overrides, read by the type of the setting, and validate.

    A file may name another one, relative to itself or else a shipped one, as its ``base``, and then states only what is
    different. Keyword ``values`` are applied last, as overrides of top-level fields. Raises ``ConfigError`` with every
    problem found, never only the first.
    """
    data = {} if path is None else _read(model, find_config(path))
    written = tuple(map(str, data))
    for override in overrides:
        _apply_override(model, data, unseal(override))
    data.update(values)
    data = _at_home(data)
    protect_settings(data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors()]
        where = f"{path}: " if path else ""
        wrong = ConfigError(f"{where}{counted(len(lines), 'problem')} in the configuration\n  " + "\n  ".join(lines))
        if not set(written) <= set(model.model_fields):
            wrong.strangers = written
        raise wrong from error


def _read(model: type[Section], file: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a file laid over those of its base."""
    asked = f", the base of {extended_by[-1]}" if extended_by else ""
    if file.is_dir():
        raise ConfigError(f"expected a YAML file{asked}, found the folder {file}: name a file in it")
    if not file.is_file():
        raise ConfigError(
            f"no configuration at {file}{asked}: expected a YAML file; the shipped ones are in configs/"
            f"{_suggest_config(model, file)}"
        )
    text = ""
    try:
        text = read_text(file).removeprefix("\ufeff")
        parsed = load_yaml(text) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}; expected a YAML file in UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}{_tab(error, text)}") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"{file}: expected a mapping of settings, found {type(parsed).__name__}")
    base = parsed.pop("base", None)
    if base is None:
        return parsed
    chain = (*extended_by, file.resolve())
    if not isinstance(base, str):
        raise ConfigError(f"{file}: expected 'base' to be the path of a YAML file, found {base!r}")
    below = file.parent / base
    below = below if below.exists() else shipped_config(base) or below
    if below.resolve() in chain:
        raise ConfigError(f"{file}: its base {base} leads back to itself; remove one 'base' line of the circle")
    return _laid_over(_read(model, below, chain), parsed)


def _tab(error: yaml.YAMLError, text: str) -> str:
    """What the parser does not say of a tab, which it sees as a character that nothing begins with."""
    mark = getattr(error, "problem_mark", None)
    lines = text.split("\n")
    if mark is None or mark.line >= len(lines):
        return ""
    indent = re.match(r"\s*", lines[mark.line])
    tab = indent is not None and "\t" in indent[0]
    return f"; line {mark.line + 1} is indented with a tab: put spaces in its place" if tab else ""


def _at_home(value: Any) -> Any:
    """The settings with ``~`` filled in where a text begins with ``~/``: a folder '~' here is never meant."""
    if isinstance(value, Mapping):
        return {key: _at_home(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    if isinstance(value, str) and value.startswith(("~/", "~\\")):
        return os.path.expanduser(value)  # noqa: PTH111  # a Path would take the slash off its end
    return value


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` with what ``above`` states; sections are joined, everything else is replaced."""
    joined = dict(below)
    for key, value in above.items():
        under = joined.get(key)
        joined[key] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return joined


def _apply_override(model: type[Section], data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"cannot read the override '{override}': expected key=value, e.g. sources.partimagenet.points=500"
        )
    *parents, last = key.strip().split(".")
    target = data
    for parent in parents:
        if target.get(parent) is None:  # an empty section of the file is as good as none
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise ConfigError(f"cannot set '{key}': '{parent}' is a single value, not a section")
    try:
        target[last] = read_value(model, [*parents, last], text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of '{key}': {error}") from error


def _explain(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    names = [str(part) for part in problem["loc"]]
    location, found = ".".join(names) or "configuration", f"(found {reprlib.repr(hide_secrets(problem.get('input')))})"
    if problem["type"] == "extra_forbidden":
        return f"{location}: no such setting{suggest(names[-1], settings_of(model, names[:-1]))}"
    if problem["type"] == "missing":
        return f"{location}: expected a value, found none: set {location}=VALUE"
    if problem["type"] == "model_type" and (inner := settings_of(model, names)):
        return redact(f"{location}: expected settings of its own, such as {location}.{inner[0]}=VALUE {found}")
    quoted = problem["type"] == "string_type" and isinstance(problem.get("input"), bool | int | float)
    advice = ": put it in quotes, so that it stays as it is written" if quoted else ""
    return redact(f"{location}: {problem['msg'].removeprefix('Value error, ')} {found}{advice}")


def _suggest_config(model: type[Section], file: Path) -> str:
    """``suggest`` among the shipped configurations that are valid for ``model``."""
    for close in difflib.get_close_matches(str(file), names := config_names(), n=len(names)):
        try:
            load_config(model, CONFIGS / close)
        except ConfigError:
            continue
        return f"; did you mean '{close}'?"
    return ""


def suggest(word: str, known: Iterable[str]) -> str:
    """``; did you mean '...'?`` where one of the known words is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
