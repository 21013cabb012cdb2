"""The files of an official CapeLLM checkpoint. Knows no torch."""

from __future__ import annotations

from pathlib import Path

from talking_points.errors import InputError

PARTS = ("vision_model", "mm_projector", "adapter_model")
"""The files of weights that a release must hold."""


class ConversionError(InputError):
    """A release that is not whole, or holds something else: lists what is missing and what is unknown."""


def check_parts(folder: Path) -> None:
    """Raise ``ConversionError`` naming absent files of weights."""
    absent = [f"{part}.safetensors" for part in PARTS if not (folder / f"{part}.safetensors").is_file()]
    if absent:
        there = ", ".join(sorted(path.name for path in folder.glob("*"))[:12]) or "nothing"
        raise ConversionError(
            f"expected {', '.join(absent)} in {folder}, found {there}: a release without them would run on random "
            "weights; download it again (only the language model itself is a download of its own)"
        )
