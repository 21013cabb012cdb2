"""The files of an official CapeLLM checkpoint. Knows no torch."""

from __future__ import annotations

from pathlib import Path

from talking_points.errors import InputError
from talking_points.whole_files import read_json

PARTS = ("vision_model", "mm_projector", "adapter_model")
"""The files of weights that a release must hold."""


class ConversionError(InputError):
    """A release that is not whole, or holds something else: lists what is missing and what is unknown."""


def adapted_model(folder: Path) -> str | None:
    """The language model that the adapters of a release were trained on, as ``adapter_config.json`` names it."""
    settings = folder / "adapter_config.json"
    found = read_json(settings, "download the release again") if settings.is_file() else {}
    named = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    return named if isinstance(named, str) and named else None


def check_parts(folder: Path) -> None:
    """Raise ``ConversionError`` naming absent files of weights."""
    absent = [f"{part}.safetensors" for part in PARTS if not (folder / f"{part}.safetensors").is_file()]
    if absent:
        there = ", ".join(sorted(path.name for path in folder.glob("*"))[:12]) or "nothing"
        raise ConversionError(
            f"expected {', '.join(absent)} in {folder}, found {there}: a release without them would run on random "
            "weights; download it again (only the language model itself is a download of its own)"
        )
