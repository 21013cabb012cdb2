"""What the human check found: shares with intervals, agreement, worst cases, and people's own descriptions."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from talking_points.audit.items import Item, Questions, draw_marks
from talking_points.audit.store import ANSWERS, Answer, AnswerStore
from talking_points.dataset_files import make_folder
from talking_points.escaping import for_markdown
from talking_points.publishing.release import data_fingerprint
from talking_points.records import stable_id
from talking_points.units import counted
from talking_points.whole_files import write_json, write_text, writing_whole

THRESHOLDS = (0.1, 0.2)
"""Distances, in units of the image's sides, below which a click counts as having found the point (paper, section 4)."""

WORST = 12
DESCRIPTIONS = "audit/human_descriptions.jsonl"


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share seen in ``count`` trials (Wilson 1927); z = 1.96 covers 95 %."""
    if not count:
        return 0.0, 1.0
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    centre, scale = share + z * z / (2 * count), 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def summarize(questions: Questions, answers: Iterable[Answer]) -> dict[str, Any]:
    """The findings as plain JSON values; answers to other items, or to other words, do not count.

    ``localize``: for every threshold the share of clicks below it, "cannot tell" counting as a miss. An item
    answered by several people counts once, with their mean. ``compare``: how often each description was preferred.
    """
    items = {(item.id, item.content): item for item in questions.items}
    given = [answer for answer in answers if answer.task == questions.task and (answer.item, answer.content) in items]
    summary: dict[str, Any] = {
        "task": questions.task,
        "split": questions.split,
        "rows": questions.rows,
        "drawn": len(questions.items),
        "checked": len({answer.item for answer in given}),
        "answers": len(given),
        "people": len({answer.person for answer in given}),
        "seconds": statistics.median(answer.seconds or 0.0 for answer in given) if given else None,
    }
    if questions.task == "localize" and given:
        summary |= _summarize_clicks(given, items)
    elif questions.task == "compare" and given:
        summary |= _summarize_choices(given)
    return summary


def write_report(output: Path, questions: Questions) -> dict[str, Any]:
    """Write ``audit/report.json``, ``report.md`` and the images it shows (``localize``), the file of a comparison
    (``compare``), or people's descriptions (``describe``) into the dataset folder. Returns the summary.
    """
    answers = AnswerStore(output / ANSWERS).latest(questions.task)
    summary = {**summarize(questions, answers), "data": data_fingerprint(output)}
    folder = make_folder(output, "audit")
    if questions.task == "describe":
        _write_descriptions(output / DESCRIPTIONS, questions, answers)
        return summary
    name = "report" if questions.task == "localize" else "comparison"
    write_json(folder / f"{name}.json", summary)
    if questions.task == "localize" and summary["answers"]:
        _write_page(folder, questions, summary)
    return summary


def _summarize_clicks(given: Sequence[Answer], items: Mapping[tuple[str, str], Item]) -> dict[str, Any]:
    by_item = _group_by_item(given)
    sources: dict[str, list[float]] = defaultdict(list)
    for key, several in by_item.items():
        sources[items[key].source].append(_share_found(several, THRESHOLDS[-1]))
    shares = []
    for threshold in THRESHOLDS:
        share = statistics.fmean(_share_found(several, threshold) for several in by_item.values())
        low, high = wilson_interval(share, len(by_item))
        shares.append({"threshold": threshold, "share": share, "low": low, "high": high})
    pairs = [pair for several in by_item.values() for pair in combinations(several, 2)]
    misses = [answer for answer in given if not _is_found(answer, THRESHOLDS[0])]
    misses.sort(key=lambda answer: (-(math.inf if answer.distance is None else answer.distance), answer.item))
    return {
        "shares": shares,
        "cannot_tell": sum(answer.verdict == "cannot_tell" for answer in given) / len(given),
        "sources": [
            {"source": source, "answers": len(found), "share": statistics.fmean(found)}
            for source, found in sorted(sources.items())
        ],
        "agreement": _agreement(pairs),
        "worst": [
            {"item": miss.item, "person": miss.person, "distance": miss.distance, "x": miss.x, "y": miss.y}
            for miss in misses[:WORST]
        ],
    }


def _summarize_choices(given: Sequence[Answer]) -> dict[str, Any]:
    votes = Counter(answer.text if answer.verdict == "prefer" else "tie" for answer in given)
    names = sorted(name for name in votes if name and name != "tie")
    decided = sum(votes[name] for name in names)
    preferences = []
    for name in names:
        low, high = wilson_interval(votes[name] / decided, decided)
        preferences.append(
            {"name": name, "votes": votes[name], "share": votes[name] / decided, "low": low, "high": high}
        )
    pairs = [pair for several in _group_by_item(given).values() for pair in combinations(several, 2)]
    same = [first.text == second.text for first, second in pairs]
    return {"preferences": preferences, "ties": votes["tie"], "agreement": statistics.fmean(same) if same else None}


def _group_by_item(given: Iterable[Answer]) -> dict[tuple[str, str], list[Answer]]:
    grouped: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in given:
        grouped[answer.item, answer.content].append(answer)
    return grouped


def _is_found(answer: Answer, threshold: float) -> bool:
    return answer.distance is not None and answer.distance < threshold


def _share_found(answers: Sequence[Answer], threshold: float) -> float:
    return statistics.fmean(_is_found(answer, threshold) for answer in answers)


def _agreement(pairs: Sequence[tuple[Answer, Answer]]) -> float | None:
    """Share of pairs of answers to one item that agree on whether its description leads to the point."""
    same = [_is_found(first, THRESHOLDS[-1]) == _is_found(second, THRESHOLDS[-1]) for first, second in pairs]
    return statistics.fmean(same) if same else None


def _write_page(folder: Path, questions: Questions, summary: Mapping[str, Any]) -> None:
    """The report for people: figures first, then the worst cases with images."""
    items = {item.id: item for item in questions.items}
    shutil.rmtree(folder / "worst", ignore_errors=True)
    make_folder(folder, "worst")
    lines = [
        "# Human check",
        "",
        f"{summary['people']} people, {counted(summary['answers'], 'answer')}, {summary['checked']} of "
        f"{summary['drawn']} rows drawn from the {summary['rows']} of the {summary['split']} split.",
        "",
        "| within | share | 95 % interval |",
        "|---|---:|---|",
    ]
    for share in summary["shares"]:
        lines.append(f"| {share['threshold']} | {share['share']:.1%} | {share['low']:.1%} to {share['high']:.1%} |")
    lines += ["", f'"Cannot tell": {summary["cannot_tell"]:.1%} of the answers.', "", "## Worst cases", ""]
    lines += ["The ring is the point that was described, the cross where the person clicked.", ""]
    for number, case in enumerate(summary["worst"]):
        item = items[case["item"]]
        click = None if case["x"] is None else (case["x"], case["y"])
        # Not after the row's id, which is text of the dataset.
        name = f"worst/{number:02d}-{stable_id(item.id)}.png"
        draw_marks(item, click).save(folder / name)
        distance = "cannot tell" if case["distance"] is None else f"distance {case['distance']:.2f}"
        text = for_markdown(item.texts["description"])
        lines += [
            f"**{distance}** ({item.source}, row {for_markdown(item.id)})",
            "",
            f"![]({name})",
            "",
            f"> {text}",
            "",
        ]
    write_text(folder / "report.md", "\n".join(lines))


def _write_descriptions(path: Path, questions: Questions, answers: Iterable[Answer]) -> None:
    """One JSON object per description that a person wrote: the paper's human baseline, to be evaluated like a model."""
    items = {item.id: item for item in questions.items}
    with writing_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for answer in answers:
            item = items.get(answer.item)
            if item is None or answer.verdict != "text":
                continue
            row = {
                "id": item.id,
                "person": answer.person,
                "description": answer.text,
                "keypoint_normalized": [item.keypoint[0] / item.width, item.keypoint[1] / item.height],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
