"""Configurations are a YAML file and ``key=value`` overrides, validated as a whole before anything expensive starts.

``fingerprint`` is what cache keys are made of.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from talking_points.errors import InputError
from talking_points.overrides import read_value
from talking_points.redaction import hide_secrets, protect_settings, redact, unseal
from talking_points.regular_files import read_text
from talking_points.shipped import CONFIGS, config_names, find_config
from talking_points.units import counted
from talking_points.yaml_text import load_yaml


class ConfigError(InputError):
    """The configuration cannot be used: says what was expected, what was found, what to do."""


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

    A file may name another one, relative to itself, as its ``base``, and then states only what is different. Keyword
    ``values`` are applied last, as overrides of top-level fields. Raises ``ConfigError`` with every problem found,
    never only the first.
    """
    data = {} if path is None else _read(model, find_config(path))
    for override in overrides:
        _apply_override(model, data, unseal(override))
    data.update(values)
    protect_settings(data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors()]
        where = f"{path}: " if path else ""
        raise ConfigError(
            f"{where}{counted(len(lines), 'problem')} in the configuration\n  " + "\n  ".join(lines)
        ) from error


def _read(model: type[Section], file: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a file laid over those of its base."""
    if not file.is_file():
        asked = f", the base of {extended_by[-1]}" if extended_by else ""
        raise ConfigError(
            f"no configuration at {file}{asked}: expected a YAML file; the shipped ones are in configs/"
            f"{_suggest_config(model, file)}"
        )
    try:
        parsed = load_yaml(read_text(file).removeprefix("\ufeff")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}; expected a YAML file in UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"{file}: expected a mapping of settings, found {type(parsed).__name__}")
    base = parsed.pop("base", None)
    if base is None:
        return parsed
    chain = (*extended_by, file.resolve())
    if not isinstance(base, str):
        raise ConfigError(f"{file}: expected 'base' to be the path of a YAML file, found {base!r}")
    if (file.parent / base).resolve() in chain:
        raise ConfigError(f"{file}: its base {base} leads back to itself; remove one 'base' line of the circle")
    return _laid_over(_read(model, file.parent / base, chain), parsed)


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
    location = ".".join(str(part) for part in problem["loc"]) or "configuration"
    if problem["type"] != "extra_forbidden":
        found = reprlib.repr(hide_secrets(problem.get("input")))  # a part of a secret would not be known as one
        return redact(f"{location}: {problem['msg']} (found {found})")
    section: Any = model
    for part in problem["loc"][:-1]:
        field = section.model_fields.get(part) if isinstance(section, type) and issubclass(section, BaseModel) else None
        section = field.annotation if field else None
    known = list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
    return f"{location}: no such setting{suggest(str(problem['loc'][-1]), known)}"


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
