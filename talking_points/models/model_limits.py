"""What the settings in a model's folder may ask of the machine that loads it.

No code of a model is run, but its settings say how many blocks are built, how many tokens are written and how much a
tokenizer puts in the place of a character; its chat template is a program, and the settings of its adapters hold a
pattern that is compared with every layer's name. Each of these can take all time and all memory.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from talking_points.errors import InputError
from talking_points.models.template_limits import bound_templates, one_rendering
from talking_points.regular_files import read_bytes, read_text

TEMPLATE_BYTES = 1 << 20
SETTING_BYTES, SETTING_VALUES = 64 << 20, 1 << 22
"""Of one file of settings or tokens: a tokenizer of 260,000 tokens has half of the bytes, a third of the values."""

SECONDS = 30
MEMORY = 8 << 30
"""What one call of a template or a processor may take."""

LINEAR_LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The layers that our own adapters sit in."""

LAYERS = re.compile(r"layers$|^depths?$|^n_layer$|blocks$")
"""Settings that say how many layers there are."""

_LARGEST = (
    (LAYERS, 4096),
    (re.compile(r"_size$"), 1 << 22),
    (re.compile(r"^max_new_tokens$|^num_beams$|^num_return_sequences$"), 1 << 16),
    (re.compile(r"tokens$|^(image|video|audio)_seq_length$"), 1 << 20),
    (re.compile(r"^(height|width)$"), 1 << 13),
    (re.compile(r"^shortest_edge$"), 1 << 16),
)
_CLASSES = {
    "tokenizer_class": re.compile(r"(?!Auto)\w+(Tokenizer|TokenizerFast|Backend)"),
    "processor_class": re.compile(r"(?!Auto)\w+Processor"),
    "image_processor_type": re.compile(r"(?!Auto)\w+(ImageProcessor\w*|FeatureExtractor)"),
    "feature_extractor_type": re.compile(r"(?!Auto)\w+(ImageProcessor\w*|FeatureExtractor)"),
    "video_processor_type": re.compile(r"(?!Auto)\w+VideoProcessor\w*"),
}
"""What transformers opens by its name: of any other class, too, such as one that loads a model by rules of its own."""
_EXPANSION, _STEPS = 1024, 256
_PLAIN_ADAPTERS = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "use_qalora": False, "lora_bias": False,
    "fan_in_fan_out": False, "init_lora_weights": True, "loftq_config": {}, "alpha_pattern": {}, "rank_pattern": {},
}  # fmt: skip
_SETTINGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("video_preprocessor_config.json", "tokenizer_config.json"),
)
_FREE = {
    *("peft_version", "megatron_core", "auto_mapping", "base_model_name_or_path", "task_type", "inference_mode"),
    *("revision", "lora_alpha", "lora_dropout", "use_rslora", "qalora_group_size", "runtime_config"),
    *("ensure_weight_tying", "r", "target_modules"),
}
_Found = TypeVar("_Found")


class ModelLimitError(InputError):
    """A model takes more time or memory than its kind of call ever needs."""


def check_settings(folder: Path) -> None:
    """Refuse a model's folder whose settings ask for what no model needs. Raises ``InputError`` with file and place.

    What is missing or is no JSON is left to the library that reads it.
    """
    for name in _SETTINGS:
        settings = read_setting(folder / name)
        check_counts(settings, str(folder / name))
        _check_classes(settings, folder / name)
    grown = 1
    for value in walk_objects(read_setting(folder / "tokenizer.json")):
        content = {"Replace": value.get("content"), "Prepend": value.get("prepend")}.get(str(value.get("type")))
        grown *= max(1, len(content)) if isinstance(content, str) else 1
        steps = max((len(item) for item in value.values() if isinstance(item, list)), default=0)
        if grown > _EXPANSION or (value.get("type") in ("Sequence", "TemplateProcessing") and steps > _STEPS):
            raise InputError(
                f"{folder / 'tokenizer.json'} puts more than {_EXPANSION} characters in the place of one, or takes "
                f"more than {_STEPS} steps: it is not used; take the tokenizer that the model was published with"
            )
    _check_adapters(folder / "adapter_config.json")


def _check_classes(settings: Any, path: Path) -> None:
    for values in walk_objects(settings):
        for key, wanted in _CLASSES.items():
            name = values.get(key)
            if isinstance(name, str) and name and not wanted.fullmatch(name):
                raise InputError(f"{path}: expected a {key} of transformers, found {name[:80]!a}: it is not opened")


def check_values(path: Path) -> None:
    """Refuse a JSON file of more values than a library can read in a moment. Raises ``InputError``, ``OSError``."""
    if path.is_file() and path.stat().st_size > SETTING_VALUES // 2:
        content = read_bytes(path, SETTING_BYTES)
        values = content.count(b",") + content.count(b"[") + content.count(b"{")
        if values > SETTING_VALUES:
            raise InputError(f"{path}: expected at most {SETTING_VALUES:,} values, found {values:,}: it is not read")


def check_counts(settings: Any, where: str) -> None:
    """Refuse numbers of layers, sizes and lengths in a configuration beyond those of any model. Raises as above."""
    for values in walk_objects(settings):
        for key, value in values.items():
            if key == "trust_remote_code" and value:
                raise InputError(f"{where}: its {key} would permit its own code: not done; take a model without code")
            if re.search("(attn|experts)_implementation", str(key)) and "/" in str(value):
                raise InputError(f"{where}: {key} would run code from the repository {str(value)[:80]!a}: not done")
            numbers = value if isinstance(value, list) else [value]
            most = next((most for pattern, most in _LARGEST if pattern.search(str(key))), None)
            if most is None or not any(isinstance(number, int | float) and number > most for number in numbers):
                continue
            raise InputError(f"{where}: expected a {str(key)[:80]!a} of at most {most:,}, found {str(value)[:80]}")


def within_limits(call: Callable[[], _Found], what: str) -> _Found:
    """What ``call`` gives, a template or processor of a model, within ``SECONDS`` and ``MEMORY``.

    Raises ``ModelLimitError`` for one that takes more, ``InputError`` for one that fails. It runs in a thread of its
    own, which is told to end; that it can be told is for ``template_limits`` to see to: no step of it is long.
    """
    bound_templates()
    found: list[_Found] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with one_rendering():
                found.append(call())
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run, daemon=True)
    end, before, wait = time.monotonic() + SECONDS, _resident(), 0.01
    worker.start()
    while worker.is_alive():
        worker.join(wait)
        wait = 0.1
        grown = _resident() - before
        if worker.is_alive() and (time.monotonic() > end or grown > MEMORY):
            # Reaches Python, such as a template's loop; what computes elsewhere ends with the process.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(SystemExit))
            limit = f"{MEMORY >> 30} GiB" if grown > MEMORY else f"{SECONDS} seconds"
            raise ModelLimitError(f"{what} takes more than {limit}: the model is not used; take another")
    if failed:
        error = failed[0]
        reason = str(error).strip().partition("\n")[0][:300]
        raise InputError(f"{what} fails ({type(error).__name__}: {reason}): the model cannot be asked so") from error
    return found[0]


def _resident() -> int:
    """Bytes that this process holds in memory; 0 where the system does not say."""
    try:
        return int(read_text("/proc/self/statm").split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


def read_setting(path: Path) -> Any:
    """The value in a JSON file; None where there is none that can be read."""
    try:
        return json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return None


def walk_objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """All objects of a value from JSON."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            yield found
            left += found.values()
        elif isinstance(found, list):
            left += [item for item in found if isinstance(item, dict | list)]


def _check_adapters(path: Path) -> None:
    """Only LoRA as we train it: other kinds bring patterns, modules and methods of their own."""
    settings = read_setting(path)
    if not isinstance(settings, dict):
        return
    rank, targets = settings.get("r"), settings.get("target_modules")
    odd = [
        key
        for key, value in settings.items()
        if key not in _FREE and value != _PLAIN_ADAPTERS.get(key) and value not in (None, False)
    ]
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= 4096:
        odd.append("r")
    names = targets if isinstance(targets, list) else []
    if targets != LINEAR_LAYERS and not (names and all(re.fullmatch(r"[\w.]{1,200}", str(name)) for name in names)):
        odd.append("target_modules")
    if odd:
        raise InputError(
            f"{path}: expected adapters of LoRA with names of layers, found {odd[0][:80]!a} as "
            f"{str(settings.get(odd[0]))[:80]!a}: it is not used; save the adapters again with plain settings"
        )
