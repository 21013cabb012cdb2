"""Configuration of the small segmenter: OMG-LLaVA's, what it is asked, and how it writes coordinates."""

# Annotations are not postponed here: @strict checks every value against its type.

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from talking_points.models.configuration import TalkingPointsConfig

QUESTIONS = {
    "text_to_mask": "{expression}",
    "point_to_mask": "at {point}",
    "box_to_mask": "in {box}",
    "text_to_box": "box of {expression}",
    "text_to_point": "point of {expression}",
    "point_to_box": "box at {point}",
    "point_to_text": "what at {point}",
    "box_to_text": "what in {box}",
}
"""The shortest questions that tell the kinds apart, for models that read little."""


@strict
class SegmenterConfig(TalkingPointsConfig):
    r"""OMG-LLaVA's vision path and language path alone: image tokens and text in, text out.

    questions: by kind of instruction what is asked, with {expression}, {point} or {box} in it. Kinds without one are
        asked as the rows of the training data ask.
    lattice: steps of the lattice on which coordinates are written, each number one token; None: any three decimals.
    image_frame: "padded" as OMG-LLaVA sees images; "stretched" to the square, so that a visual token stands for the
        same part of every image and shares of the image's size can be read off its place.
    object_tokens: whether the object queries' tokens follow the image's; a vision path whose decoder was never
        trained has none worth reading.
    image_positions: whether to each visual token a learnt embedding of its place is added. From the order of the tokens
        alone a model that starts from random weights learns late where they lie.
    """

    model_type = "segmenter"

    questions: Any = None
    lattice: int | None = None
    image_frame: Literal["padded", "stretched"] = "padded"
    object_tokens: bool = True
    image_positions: bool = False
    max_new_tokens: int = 1024

    def __post_init__(self, *args: Any, **kwargs: Any) -> None:
        self.questions = dict(QUESTIONS if self.questions is None else self.questions)
        super().__post_init__(*args, **kwargs)
