"""The two ways in which OMG-LLaVA's release asks about a point that it is given as a visual prompt. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from talking_points.errors import InputError

PromptForm = Literal["marks", "region_caption"]

MARKS = "There are some marks: Mark 1 {mark}.\n{question}"
"""How the release's point data opens a conversation: the marks in a row, then the question (mdpv_points_preprocess)."""

REGION_CAPTION = "Can you provide me with a detailed description of the region in the picture marked by region1 {mark}?"
"""The whole question of the release's region-caption evaluation (region_cap_mask_omg_seg_llava)."""


def point_prompt(form: PromptForm, question: str = "", mark: str = "<mark>") -> str:
    """What is said after the image to a model that takes one point as a visual prompt.

    form: "marks" puts the mark before ``question``, "region_caption" asks the release's own and ignores ``question``.
    """
    return (MARKS if form == "marks" else REGION_CAPTION).format(mark=mark, question=question)


def captioner_prompt(form: PromptForm, question: str, *, box: bool) -> str:
    """What a captioner is asked about the object under a point, which in the form "marks" is named after the question.

    ``box``: the object's box is given too, as ``<region>``; the form "region_caption" has no place for it.
    """
    said = [question, "The point meant is Mark 1.", *(["The object meant is region1 <region>."] if box else [])]
    return point_prompt(form, " ".join(said).strip())


def prompt_options(options: Mapping[str, Any]) -> tuple[PromptForm, bool]:
    """The form, and whether boxes are shown, of a step's ``options``. Raises ``InputError`` for an unknown form."""
    form = options.get("prompt_form", "marks")
    if form not in get_args(PromptForm):
        raise InputError(
            f"options.prompt_form of omg_llava: expected one of {', '.join(get_args(PromptForm))}, found {form!r}"
        )
    return form, form == "marks" and bool(options.get("box", True))
