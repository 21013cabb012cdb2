"""What a run of ``make outlines`` has shown, held against its floors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from talking_points.evaluation.segmentation_tables import segmentation_table

FLOORS = {
    "well_formed": 98.0,
    "giou": 45.0,
    "over_exchanged_images": 20.0,
    "over_box": 5.0,
    "box_accuracy": 50.0,
    "gain": 2.0,
    "boundary_gain": 0.0,
    "well_formed_gain": 0.0,
}
"""In percent, or points of it."""

_REPORTED = ("ratio", "ratio_spread", "clipped_low", "clipped_high", "zero_variance", "kl")


def judge_outlines(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Every floor with what was found; the gain of reward over as much more supervised training, by seed.

    Of the supervised model are the overlaps and boxes, of the refined ones, by seed, what reward gains and the share of
    well-formed answers.
    """
    found = figures["splits"]["test"]
    ways, compared = found["ways"], found["compared"]
    pairs = [(name, name.replace("refined", "continued")) for name in compared if name.startswith("refined")]
    gains = [ways[one]["giou"] - ways[other]["giou"] for one, other in pairs]
    boundary = [compared[one]["boundary_f"] - compared[other]["boundary_f"] for one, other in pairs]
    formed = float(np.mean([compared[one]["form"]["well_formed"] for one, _ in pairs]))
    values = {
        "well_formed": formed,
        "giou": found["res"]["giou"],
        "over_exchanged_images": ways["model"]["giou"] - ways["exchanged images"]["giou"],
        "over_box": ways["model"]["giou"] - ways["box of the answer"]["giou"],
        "box_accuracy": found["rec"]["accuracy@0.5"],
        "gain": float(np.mean(gains)),
        "boundary_gain": float(np.mean(boundary)),
        "well_formed_gain": formed - found["form"]["well_formed"],
    }
    spread = float(np.std(gains, ddof=min(1, len(gains) - 1)))
    return {
        "floors": {
            name: {"found": value, "floor": FLOORS[name], "reached": value >= FLOORS[name]}
            for name, value in values.items()
        },
        "gain": {"by_seed": gains, "mean": float(np.mean(gains)), "std": spread},
    }


def outlines_table(report: Mapping[str, Any]) -> str:
    """The report as Markdown: the floors, reward by seed, then every way to answer."""
    lines = ["| held-out drawn scenes | found | floor | reached |", "|---|---|---|---|"]
    for name, value in report["floors"].items():
        reached = "yes" if value["reached"] else "no"
        lines.append(f"| {name.replace('_', ' ')} | {value['found']:.1f} | {value['floor']:.0f} | {reached} |")
    gain = report["gain"]
    lines += [
        "",
        f"Reward less as much more supervised training: {gain['mean']:+.2f} gIoU, standard deviation {gain['std']:.2f} "
        f"over {len(gain['by_seed'])} seeds.",
        "",
        "| model | gIoU | boundary F | well formed | points | tokens | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    found, stages = report["figures"]["splits"]["test"], report["stages"]
    for name, one in {"segmenter": found, **found["compared"]}.items():
        form, spent = one["form"], stages.get(name, {}).get("cpu_seconds", 0)
        lines.append(
            f"| {name} | {one['res']['giou']:.1f} | {one['boundary_f']:.1f} | {form['well_formed']:.1f} | "
            f"{form['points']:.1f} | {form['tokens']:.1f} | {spent:.0f} |"
        )
    lines += ["", "Means over the steps of reinforcement:", ""]
    lines += [f"| reinforcement | {' | '.join(_REPORTED).replace('_', ' ')} |", "|---" * (1 + len(_REPORTED)) + "|"]
    for name, stage in stages.items():
        if name.startswith("refined"):
            values = [stage["metrics"].get(f"mean_{key}", float("nan")) for key in _REPORTED]
            lines.append(f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |")
    return "\n".join([*lines, "", segmentation_table(report["figures"])])
