"""Our model types for transformers' ``AutoConfig`` and ``AutoModel``, so that no remote code is ever asked for.

Importing this module, or any of our model classes, registers them. Until then transformers says that it does not
recognize the model type, as it does of every type that a package adds. Tokenizers need no registration, and images are
given to the models as they are: there is no processor to load.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from talking_points.config import ConfigError
from talking_points.models.capellm.configuration import AnswererConfig
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.segmenter_configuration import SegmenterConfig

CONFIGS: tuple[type[PreTrainedConfig], ...] = (OmgLlavaConfig, TalkingPointsConfig, AnswererConfig, SegmenterConfig)
"""One for each model type; the Point Descriptor and the Point Localizer share theirs."""

_PLACES = {
    "OmgLlavaModel": "talking_points.models.omg_llava.modeling",
    "PointDescriptor": "talking_points.models.descriptor",
    "PointLocalizer": "talking_points.models.localizer",
    "PointAnswerer": "talking_points.models.answerer",
    "Segmenter": "talking_points.models.segmenter",
}
_OF_TYPE = {
    "omg_llava": ("OmgLlavaModel",),
    "talking_points": ("PointDescriptor", "PointLocalizer"),
    "capellm": ("PointAnswerer",),
    "segmenter": ("Segmenter",),
}


def choose_class(config: PreTrainedConfig, name: str | Path = "") -> type[PreTrainedModel]:
    """The class that a configuration's ``architectures`` names; where a type has one class, that one.

    Raises ``ConfigError`` where it names none of the type's: which of two models it is cannot be guessed.
    """
    known = _OF_TYPE[config.model_type]
    named = [architecture for architecture in config.architectures or () if architecture in known]
    if not named and (len(known) > 1 or config.architectures):
        raise ConfigError(
            f"{name or 'the configuration'}: expected architectures in config.json to name one of {', '.join(known)}, "
            f"found {', '.join(map(str, config.architectures or ())) or 'none'}: load it with the class that saved "
            f"it, such as talking_points.{known[-1]}"
        )
    chosen = named[0] if named else known[0]
    found: type[PreTrainedModel] = getattr(importlib.import_module(_PLACES[chosen]), chosen)
    return found


class _ByArchitecture:
    """What ``AutoModel`` finds for a type of ours: loads the class that the configuration names."""

    config_class: ClassVar[type[PreTrainedConfig]]

    @classmethod
    def from_pretrained(cls, name: str | Path, *arguments: Any, config: PreTrainedConfig, **options: Any) -> Any:
        # Nothing of ours is downloaded as code, and the adapters of PEFT are no part of our folders.
        for unused in ("trust_remote_code", "adapter_kwargs"):
            options.pop(unused, None)
        return choose_class(config, name).from_pretrained(name, *arguments, config=config, **options)

    @classmethod
    def _from_config(cls, config: PreTrainedConfig, **options: Any) -> Any:
        return choose_class(config)._from_config(config, **options)


def register() -> None:
    """Make the model types known to transformers; again, and nothing changes."""
    for config in CONFIGS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        choice = type(f"{config.__name__}Choice", (_ByArchitecture,), {"config_class": config})
        AutoModel.register(config, choice, exist_ok=True)


register()
