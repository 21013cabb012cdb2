"""Tables of segmentation, ours beside those that SimpleSeg's project page prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talking_points.grounding.boundaries import BOUNDARY_TOLERANCE

SPLITS = (
    "refCOCO val", "refCOCO testA", "refCOCO testB", "refCOCO+ val", "refCOCO+ testA", "refCOCO+ testB",
    "refCOCOg val", "refCOCOg test",
)  # fmt: skip

PAPER_CIOU = {
    "SimpleSeg-Qwen2.5-VL-7B": (80.9, 77.8, 75.2, 72.4, 77.3, 66.1, 73.3, 74.1),
    "SimpleSeg-Kimi-VL": (80.0, 80.6, 76.2, 70.4, 76.2, 67.1, 72.8, 74.7),
}
"""cIoU in percent on the eight splits."""

PAPER_AVERAGES = {
    "SimpleSeg-Qwen2.5-VL-7B": 74.6,
    "SimpleSeg-Kimi-VL": 74.8,
    "Text4Seg, without a refiner": 71.4,
    "Text4Seg, refined by SAM": 75.4,
    "LISA": 69.9,
    "Groundhog": 74.2,
}
"""The mean of the eight splits' cIoU."""

NOTE = (
    "The first row's refCOCO val above its testA is odd and may be a misprint. Splits are never pooled; the published "
    "average is the mean of the eight. Drawn stand-ins of these datasets are comparable with none of them."
)


COLUMNS = (
    "Figures are percent. A sample is one question with one true mask; cIoU is the sum of all intersections over that "
    "of all unions, gIoU the mean overlap (IoU) of the samples, P@0.5 the share of samples with at least this overlap. "
    "Acc@0.5 is the share whose box round the outlines overlaps the true one by at least 0.5, *box asked* the same of "
    "boxes that were asked for in words. *boundary F* is the mean agreement of the boundaries, within "
    f"{100 * BOUNDARY_TOLERANCE:g} % of the image's diagonal. *well formed* are the answers that a strict reader takes "
    "whole: here no model is held to its grammar."
)

WAYS = (
    "*box of the answer*: the box round its outlines in their place; *exchanged images*: the same questions about "
    "other images; *mean shape*: that of the training regions, without a look; further ones are the models that it is "
    "compared with. *model less this* is the difference in gIoU, in points, with an interval that draws images and the "
    "p-value of a sign-flip test."
)


def segmentation_table(report: Mapping[str, Any]) -> str:
    """A report as Markdown."""
    lines = [
        f"Model: `{report['model']}`",
        "",
        "| split | samples | cIoU | gIoU | P@0.5 | P@0.7 | P@0.9 | Acc@0.5 | box asked | boundary F | well formed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for split, found in report["splits"].items():
        res, asked = found["res"], found.get("rec_boxes", {}).get("accuracy@0.5")
        lines.append(
            f"| {split} | {found['samples']:,} | {res['ciou']:.1f} | {res['giou']:.1f} | {res['precision@0.5']:.1f} | "
            f"{res['precision@0.7']:.1f} | {res['precision@0.9']:.1f} | {found['rec']['accuracy@0.5']:.1f} | "
            f"{'-' if asked is None else format(asked, '.1f')} | {found['boundary_f']:.1f} | "
            f"{found['form']['well_formed']:.1f} |"
        )
    lines += ["", COLUMNS]
    for split, found in report["splits"].items():
        lines += ["", f"**{split}**: the outlines' own ceiling is {found['ceiling']:.1f} gIoU.", ""]
        lines += _ways(found)
        lines += ["", _form(found["form"])]
    lines += ["", WAYS]
    lines += ["", "Published cIoU:", "", f"| method | {' | '.join(SPLITS)} | average |", "|---" * 10 + "|"]
    for name, average in PAPER_AVERAGES.items():
        values = PAPER_CIOU.get(name, ("-",) * 8)
        lines.append(f"| {name} | {' | '.join(map(str, values))} | {average} |")
    return "\n".join([*lines, "", NOTE]) + "\n"


def _ways(found: Mapping[str, Any]) -> list[str]:
    lines = ["| way | cIoU | gIoU | model less this | 95 % | p |", "|---|---|---|---|---|---|"]
    for name, way in found["ways"].items():
        change = found["differences"].get(f"model - {name}")
        compared = "| - | - | - |"
        if change is not None:
            low, high = change["interval"]
            compared = f"| {change['difference']:+.1f} | {low:+.1f} to {high:+.1f} | {change['p_value']:.4f} |"
        lines.append(f"| {name} | {way['ciou']:.1f} | {way['giou']:.1f} {compared}")
    return lines


def _form(form: Mapping[str, Any]) -> str:
    errors = ", ".join(f"{name} {count}" for name, count in form["errors"].items()) or "none"
    return (
        f"Points per answer {form['points']:.1f}, tokens {form['tokens']:.1f}, seconds {form['seconds']:.3f}. Of all "
        f"answers {form['cut_off']:.1f} % are cut off and {form['nothing_read']:.1f} % hold no outline; first errors "
        f"by number: {errors}. Of the outlines {form['counterclockwise']:.1f} % go counterclockwise and "
        f"{form['crossing_itself']:.1f} % cross themselves; in {form['overlapping']:.1f} % of answers two overlap."
    )
