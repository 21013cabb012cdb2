"""What lies in a model's folder, told without loading it: which kind of model, and whether it is all there.

Needs neither torch nor transformers, whose import alone takes seconds.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from talking_points.config import ConfigError
from talking_points.errors import InputError, RunError
from talking_points.hub_client import silent_hubs
from talking_points.hub_names import unavailable
from talking_points.models.kinds import KINDS, ModelKind, find_kind
from talking_points.models.model_limits import (
    SETTING_BYTES,
    TEMPLATE_BYTES,
    check_counts,
    check_settings,
    check_values,
    read_setting,
)
from talking_points.models.weight_files import WeightFileError, check_length, check_weights
from talking_points.nearby import folder_near
from talking_points.regular_files import WHOLE, IrregularFileError, check_regular, homes, read_text

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
"""Those arguments of ``from_pretrained`` that hold for every file of a model."""
_TYPES = {"PointAnswerer": ("capellm",), "Segmenter": ("segmenter",)}
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_READ = (".json", ".jinja", ".model", ".txt", *_WEIGHTS)
_SIZES = {".jinja": TEMPLATE_BYTES, ".json": SETTING_BYTES} | dict.fromkeys(_WEIGHTS)
_BASE_TYPES = ("talking_points", "omg_llava")


def check_model(name: str | Path, role: str, setting: str = "--model", remedy: str | None = None) -> None:
    """Refuse what is no finished model of the kind ``KINDS[role]``; a repository of the Hub need only be in reach.

    Raises ``ConfigError`` that says what was expected of ``setting``, what was found and what to do.
    """
    kind = KINDS[role]
    expected = f"{setting}: expected a {kind.title}, the folder of a trained one or a repository on the Hub"
    advice = remedy or f"train one with 'talking-points {kind.command}'"
    folder = Path(name)
    if not folder.exists():
        reason = unavailable(str(name), "model")
        if reason:
            raise ConfigError(f"{expected}; found no {kind.title} at {name}: {reason}; {advice}")
        return
    found = _problem(folder, kind)
    if found:
        raise ConfigError(f"{expected}; {folder} {found}; {advice}")


def is_our_folder(name: str | Path) -> bool:
    """Whether a folder is not that of a foreign model: one of ours, or of nothing that can be read."""
    folder = Path(name)
    if (folder / "adapter_config.json").is_file():
        return False
    try:
        found = json.loads(read_text(folder / "config.json"))
        return found.get("model_type") in ("segmenter", "talking_points", "capellm", "omg_llava", None)
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def tell_kind(folder: Path) -> str:
    """The class of the finished model in a folder, as its configuration names it.

    Raises ``ConfigError`` for a folder without one, with another, or whose weights are not whole.
    """
    expected = f"expected a model of ours (Point Descriptor, Point Localizer) in {folder}"
    if not folder.exists():
        raise ConfigError(f"{expected}, found nothing there: name the folder that training has left")
    problem = _folder_problem(folder)
    if problem:
        raise ConfigError(f"{expected}, which {problem}: name the folder that training has left")
    listed = _read_config(folder).get("architectures")
    found = str(listed[0]) if isinstance(listed, list) and listed else "None"
    if _title(found) is None:
        raise ConfigError(f"{expected}, found {found!a} (architectures in config.json)")
    return found


@contextmanager
def loading(name: str | Path, what: str) -> Iterator[None]:
    """Around the reading of a model: whatever is wrong with its files becomes an ``InputError`` that names them.

    The libraries that read a configuration, weights or a tokenizer take their form for granted.
    """
    with explaining(name, what):
        check_files(Path(name))
        yield


@contextmanager
def explaining(name: str | Path, what: str) -> Iterator[None]:
    """As ``loading``, of files that need not have the form that transformers and peft give a model."""
    try:
        yield
    except (InputError, RunError, MemoryError, NotImplementedError):
        raise
    except Exception as error:
        from huggingface_hub.errors import StrictDataclassError  # which commands that load nothing do without

        said = str(error.__cause__ or error) if isinstance(error, StrictDataclassError) else str(error)
        reason = said.strip().partition("\n")[0][:300] or type(error).__name__
        raise InputError(
            f"cannot load a {what} from {str(name)[:300]} ({type(error).__name__}: {reason}{silent_hubs()}): expected "
            "the folder of a finished one, or a repository of the Hub that this machine can reach"
        ) from error


def check_files(folder: Path) -> None:
    """Before a library reads the model in ``folder``: none of its files is a pipe or a device, which it would wait for.

    Nor is one larger than what is read as a whole, weights aside, nor a link out of the folder: what it leads to would
    be asked about, and written beside what is trained. Raises ``IrregularFileError``; ``InputError`` for settings that
    take all time or memory, and for weights that lie elsewhere.
    """
    home = homes(folder.resolve())
    for file in sorted((*folder.glob("*"), *folder.glob("additional_chat_templates/*"))):
        if file.suffix not in _READ:
            continue
        check_regular(file, _SIZES.get(file.suffix, WHOLE))
        if file.suffix not in _WEIGHTS and not any(file.resolve().is_relative_to(place) for place in home):
            raise IrregularFileError(errno.EINVAL, "expected a file, found a link out of the folder", str(file))
        if file.suffix == ".json":
            check_values(file)
    check_settings(folder)
    check_weights(folder, read_setting(folder / "config.json"))


def check_config(values: dict[str, Any], class_name: str, name: str | Path) -> None:
    """Before a model of ``class_name`` is made from the configuration ``values`` of the folder or repository ``name``.

    Raises ``ConfigError`` for that of another kind, whose answers would come from new, random weights; ``InputError``
    for counts that take all time or memory.
    """
    check_counts(values, str(name))
    other = wrong_kind(values, class_name)
    if other:
        raise ConfigError(
            f"expected the {class_name} at {name}, found a {other} (architectures and model_type in config.json): load "
            "it as what it is, or train the one that is wanted"
        )


def wrong_kind(config: dict[str, Any], class_name: str) -> str | None:
    """What else than this kind of model a configuration belongs to, or None where it may be of this kind."""
    if _title(class_name) is None:
        return None
    listed = config.get("architectures")
    found = str(listed[0]) if isinstance(listed, list) and listed else ""
    if found == "OmgLlavaModel" and class_name == "PointLocalizer":
        return "OMG-LLaVA model without a head for coordinates"
    if _title(found):
        return _title(found) if found != class_name else None
    model_type = config.get("model_type")
    return None if model_type in (None, *_TYPES.get(class_name, _BASE_TYPES)) else f"model of the type {model_type!a}"


def _title(class_name: str) -> str | None:
    """A class of ours in words, or None for another."""
    kind = find_kind(class_name)
    return kind.title if kind else None


def _problem(folder: Path, kind: ModelKind) -> str | None:
    problem = _config_problem(folder)
    if problem:
        return problem
    other = wrong_kind(_read_config(folder), kind.class_name)
    if other:
        return f"is a {other} (architectures and model_type in config.json)"
    return _weights_problem(folder)


def _folder_problem(folder: Path) -> str | None:
    return _config_problem(folder) or _weights_problem(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    return dict(json.loads(read_text(folder / "config.json")))


def _config_problem(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"is a file{folder_near(folder, 'config.json')}"
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "vision.safetensors").exists():
            return "holds a vision path that models start from, and no model; name the folder of a model beside it"
        started = (folder / "started.json").exists()
        return (
            "holds a training that is not finished"
            if started
            else f"has no config.json{folder_near(folder, 'config.json')}"
        )
    try:
        config = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        return f"has a config.json that cannot be read ({error})"
    return None if isinstance(config, dict) else "has a config.json that holds no JSON object of settings"


def _weights_problem(folder: Path) -> str | None:
    try:
        check_files(folder)
    except OSError as error:
        return f"has a {Path(str(error.filename)).name} that cannot be read ({error})"
    except InputError as error:
        return f"has settings that are not followed ({error})"
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(map(str, set(json.loads(read_text(index))["weight_map"].values())))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            return f"has a {index.name} that cannot be read ({error})"
    if elsewhere := [name for name in names if not re.fullmatch(r"[\w][\w.-]*\.safetensors", name)]:
        return f"has a {index.name} that names other files than safetensors in the folder: {elsewhere[0][:80]!a}"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return f"has no weights: {', '.join(missing[:3])} {'is' if len(missing) == 1 else 'are'} not there"
    for name in names:
        try:
            check_length(folder / name)
        except WeightFileError as problem:
            return f"has weights that cannot be used: {name} {problem}"
    return None
