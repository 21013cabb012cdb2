"""Lets vLLM load LLaVA where torchvision is not installed (CPU builds).

vLLM's LLaVA module imports an image processor that needs torchvision, though it never runs it for CLIP towers;
transformers has the same processor on Pillow. vLLM calls ``register`` in each of its processes, through the entry point
group ``vllm.general_plugins`` of this distribution.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

_NEEDS_TORCHVISION = "transformers.models.pixtral.image_processing_pixtral"
_ON_PILLOW = "transformers.models.pixtral.image_processing_pil_pixtral"


def register() -> None:
    """Put the Pillow processor in the other's place; does nothing where torchvision is installed."""
    if find_spec("torchvision") is None and _NEEDS_TORCHVISION not in sys.modules:
        sys.modules[_NEEDS_TORCHVISION] = importlib.import_module(_ON_PILLOW)
