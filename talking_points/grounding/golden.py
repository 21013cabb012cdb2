"""Compare with recorded results of an independent implementation, case by case.

A file of cases is ``{schema, tolerance, cases: [{id, kind, input, expected}]}``. Cases of what is computed from regions
further on (metrics, rewards, the objective) are checked where they are computed, which loads those rooms on demand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from talking_points.grounding.contours import Tracing, trace
from talking_points.grounding.grammar import (
    UnreadableError,
    read_box,
    read_lenient,
    read_point,
    read_strict,
    write_outlines,
)
from talking_points.grounding.outlines import Outlines, Polygon, is_clockwise
from talking_points.grounding.rasters import area, centroid, decode_mask, empty_mask, iou, outlines_box, rasterise
from talking_points.grounding.run_lengths import decompress, fills
from talking_points.regular_files import read_text

Case = Mapping[str, Any]

INFORMATIVE = frozenset({"area_by_pixel_centres"})
"""Expected values that say what another rasteriser gives."""


def check(file: str | Path) -> list[tuple[str, str, float]]:
    """(id, kind, error) of every case: the largest absolute difference of its numbers.

    What must be equal (texts, errors, truth values, shapes) counts as infinity where it is not, as does a case that
    raises, of a kind that is not known, or that is none. Raises ``ValueError`` for a file that holds no cases.
    """
    try:
        content = json.loads(read_text(Path(file)))
    except RecursionError as error:
        raise ValueError(f"expected cases in {file}, found lists in lists without an end") from error
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, list):
        raise ValueError(f'expected a list "cases" in {file}, found none')
    return [
        (str(case.get("id")), str(case.get("kind")), _error(case)) if isinstance(case, dict) else ("", "", math.inf)
        for case in cases
    ]


def _error(case: Case) -> float:
    kind, expected = case.get("kind"), case.get("expected")
    compute = _KINDS.get(kind) if isinstance(kind, str) else None
    if compute is None or not isinstance(expected, Mapping):
        return math.inf
    try:
        found = compute(case["input"])
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError):
        return math.inf
    return difference({key: value for key, value in expected.items() if key not in INFORMATIVE}, found)


def difference(expected: Any, found: Any) -> float:
    """Largest absolute difference of the numbers in two nests of lists and mappings, infinity where they differ else.

    Keys that are found and not expected do not count; what is no number (NaN) is equal to nothing.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or not expected.keys() <= found.keys():
            return math.inf
        return max((difference(value, found[key]) for key, value in expected.items()), default=0.0)
    if isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(expected) != len(found):
            return math.inf
        return max((difference(*pair) for pair in zip(expected, found, strict=True)), default=0.0)
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, found)]
    if all(numbers):
        try:
            apart = 0.0 if expected == found else float(abs(expected - found))
        except OverflowError:  # a whole number of hundreds of digits
            return math.inf
        return math.inf if math.isnan(apart) else apart
    return 0.0 if expected == found and not any(numbers) else math.inf


def _mask(size_and_counts: Case | None) -> Any:
    """Run lengths as files of cases spell them: counts are text."""
    if size_and_counts is None:
        return None
    (height, width), counts = size_and_counts["size"], size_and_counts["counts"]
    if not fills(decompress(counts), width, height):
        raise ValueError(f"expected run lengths that fill {height} x {width} pixels")
    return {"size": [height, width], "counts": counts.encode()}


def _outlines(polygons: Any) -> Outlines:
    return Outlines(tuple(tuple(tuple((x, y) for x, y in ring) for ring in polygon) for polygon in polygons))


def _parse(given: Case) -> Case:
    strict = read_strict(given["text"], given["max_points"])
    lenient = read_lenient(given["text"], given["max_points"])
    polygons = None if strict.outlines is None else strict.outlines.polygons
    return {
        "ok": strict.error is None,
        "error": strict.error,
        "polygons": polygons,
        "clockwise": None if polygons is None else [_turns(polygon) for polygon in polygons],
        "lenient": {"polygons": lenient.outlines.polygons, "truncated": lenient.truncated},
    }


def _turns(polygon: Polygon) -> list[bool]:
    return [is_clockwise(ring) for ring in polygon]


def _parse_flat(read: Callable[[str], Any]) -> Callable[[Case], Case]:
    def parse(given: Case) -> Case:
        try:
            return {"ok": True, "error": None, "value": read(given["text"])}
        except UnreadableError as unreadable:
            return {"ok": False, "error": unreadable.error, "value": None}

    return parse


def _raster(given: Case) -> Case:
    outlines, width, height = _outlines(given["polygons"]), given["width"], given["height"]
    rle = rasterise(outlines, width, height)
    return {
        "area": area(rle),
        "iou": iou(_mask(given["mask"]), rle),
        "box": outlines_box(outlines, width, height),
        "centroid": centroid(rle),
    }


def _encode(given: Case) -> Case:
    mask, decimals = decode_mask(_mask(given["mask"])), given["decimals"]
    tracing = Tracing(
        tolerance=given["epsilon"],
        tolerance_of="length",
        contour=given["contour"],
        direction=given["direction"],
        components=None,
        holes=True,
    )
    outlines = trace(mask, tracing)
    return {
        "text": write_outlines(outlines, decimals),
        "text_with_holes": write_outlines(outlines, decimals, holes=True),
        "area": int(mask.sum()),
        "points": outlines.without_holes.point_count,
    }


def _res_metrics(given: Case) -> Case:
    from talking_points.evaluation.masks import PRECISION_AT, score_masks

    samples = given["samples"]
    scores = score_masks([_mask(s["gt"]) for s in samples], [_mask(s["prediction"]) for s in samples])
    return {
        "ciou": scores.ciou,
        "giou": scores.giou,
        "iou": scores.iou.tolist(),
        "intersection": int(scores.intersections.sum()),
        "union": int(scores.unions.sum()),
        **{f"precision@{threshold}": scores.precision(threshold) for threshold in PRECISION_AT},
    }


def _rec_metrics(given: Case) -> Case:
    from talking_points.evaluation.masks import score_boxes

    scores = score_boxes([s["gt"] for s in given["samples"]], [s["prediction"] for s in given["samples"]])
    return {
        "iou": scores.iou.tolist(),
        "accuracy@0.5": scores.accuracy(0.5),
        "accuracy_above_0.5": scores.accuracy_above(0.5),
    }


def _reward(given: Case) -> Case:
    from talking_points.training.mask_rewards import RewardWeights, centroid_reward, mask_reward

    truth = _mask(given["gt"])
    height, width = truth["size"]
    # What cannot be read draws nothing.
    prediction = (_mask(given["prediction"]) if given["parsed"] else None) or empty_mask(width, height)
    true, found = centroid(truth), centroid(prediction)
    apart = None if true is None or found is None else (true[0] - found[0], true[1] - found[1])
    return {
        "iou": iou(truth, prediction),
        "centroid_distance_pixels": apart and math.hypot(*apart),
        "centroid_distance_normalized": apart and math.hypot(apart[0] / width, apart[1] / height),
        "centroid_reward": centroid_reward(truth, prediction),
        "reward": mask_reward(truth, prediction if given["parsed"] else None, RewardWeights(**given["weights"])),
    }


def _gspo(given: Case) -> Case:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from talking_points.training.grpo import gspo_loss

    lengths = [len(sequence) for sequence in given["log_probs"]]
    if lengths != [len(sequence) for sequence in given["old_log_probs"]] or len(lengths) != len(given["advantages"]):
        raise ValueError("expected an old log-probability for each new one, and an advantage for each sequence")
    new, old = (
        pad_sequence([torch.tensor(sequence, dtype=torch.float64) for sequence in given[name]], batch_first=True)
        for name in ("log_probs", "old_log_probs")
    )
    new.requires_grad_()
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    loss = gspo_loss(
        new,
        old,
        torch.tensor(given["advantages"], dtype=torch.float64),
        mask,
        epsilon_low=given["epsilon_low"],
        epsilon_high=given["epsilon_high"],
    )
    loss.total.backward()
    assert new.grad is not None
    return {
        "ratios": loss.ratios.tolist(),
        "clipped": loss.clipped.tolist(),
        "loss": loss.total.item(),
        "gradient_of_log_probs": [row[:length].tolist() for row, length in zip(new.grad, lengths, strict=True)],
    }


def _advantages(given: Case) -> Case:
    import torch

    from talking_points.training.grpo import group_advantages

    rewards = torch.tensor(given["rewards"], dtype=torch.float64)
    return {"advantages": group_advantages(rewards, given["clip"], given["std"]).tolist()}


_KINDS: dict[str, Callable[[Case], Case]] = {
    "parse": _parse,
    "parse_box": _parse_flat(read_box),
    "parse_point": _parse_flat(read_point),
    "raster": _raster,
    "encode": _encode,
    "res_metrics": _res_metrics,
    "rec_metrics": _rec_metrics,
    "reward": _reward,
    "gspo": _gspo,
    "advantages": _advantages,
}
