"""What segmenters have in common, whatever they are built on, and how one is opened by the name of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from talking_points.config import ConfigError
from talking_points.grounding.grammar import UNIT
from talking_points.grounding.outlines import Coordinates, Outlines, Point
from talking_points.hub_client import bounded_hub
from talking_points.hub_commits import pinned
from talking_points.models.model_folders import check_model, is_our_folder
from talking_points.models.omg_llava.image_processing import ImageInput


class RegionModel(Protocol):
    """An image and words in, places out."""

    def segment(self, images: Sequence[ImageInput], expressions: Sequence[str], **options: Any) -> list[Outlines]:
        """The outlines of what each expression refers to in its image, in unit coordinates; perhaps none."""

    def answer(self, images: Sequence[ImageInput], questions: Sequence[str], **options: Any) -> list[str]:
        """Answers to one question about each image, as they were written."""

    def outline(self, images: Sequence[ImageInput], questions: Sequence[str], **options: Any) -> list[str]:
        """As ``answer``, to questions for outlines: a model that can be held to its grammar writes nothing else."""

    def question(self, kind: str, **elements: str) -> str:
        """What it is asked for a kind of instruction."""

    def scale(self, width: int, height: int) -> Point:
        """What the coordinates it writes about an image of this size are divided by to become unit ones."""

    def count_tokens(self, text: str) -> int:
        """Tokens of an answer."""


def open_segmenter(
    name: str | Path,
    setting: str = "--model",
    *,
    revision: str | None = None,
    coordinates: Coordinates | None = None,
    trust_remote_code: bool = False,
    device: Any = None,
) -> RegionModel:
    """The segmenter in a folder or repository, on a ``device``, by default that of this process.

    Ours are told by their configuration; anything else is opened as a model of ``AutoModelForImageTextToText``, whose
    ``coordinates`` ("unit" if not said) are never guessed. Raises ``ConfigError`` for what is neither.
    """
    from talking_points.processes import process_state

    if is_ours(name):
        check_model(name, "segmenter", setting)
        from talking_points.models.segmenter import Segmenter

        model = Segmenter.from_pretrained(name, revision=revision or "main")
        return model.to(device or process_state().device).eval()
    from talking_points.models.image_text import ImageTextSegmenter

    return ImageTextSegmenter.from_pretrained(
        name, revision=revision, coordinates=coordinates or "unit", trust_remote_code=trust_remote_code, device=device
    )


def refuse_coordinates(name: str, model: RegionModel, coordinates: Coordinates, setting: str) -> None:
    """Raises ``ConfigError`` for coordinates that were asked for and that an opened model does not write."""
    if coordinates != "unit" and model.scale(640, 480) == UNIT:
        raise ConfigError(
            f"{setting}: {name} writes shares of the image's size (unit), found {coordinates}; leave {setting} out, "
            "which is for foreign models"
        )


def is_ours(name: str | Path) -> bool:
    """Whether a name is that of a small segmenter of ours, or of nothing that can be read, which is then refused."""
    folder = Path(name)
    if not folder.is_dir():
        from transformers import PreTrainedConfig

        bounded_hub()
        try:
            values, _ = PreTrainedConfig.get_config_dict(str(name), revision=pinned(name) or "main")
        except Exception:  # not there: ``check_model`` says so in words
            return True
        return values.get("model_type") == "segmenter"
    return is_our_folder(folder)
