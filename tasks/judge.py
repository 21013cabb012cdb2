"""Optional stage after verifying: does the text lead back to its point? A model says so, or the Point Localizer tries.

The score becomes a column of the dataset, and rows below a threshold can be rejected.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from talking_points.build_config import CropConfig, JudgeConfig
from talking_points.config import Section
from talking_points.descriptions.asking import Answer, ask, release_backend, share_backend
from talking_points.descriptions.backends.protocol import ChatRequest
from talking_points.descriptions.judging import judge_request, read_score
from talking_points.descriptions.model_identity import identify_model
from talking_points.errors import AnswersPending
from talking_points.records import Candidate, source_label
from talking_points.redaction import hide_secrets
from talking_points.sources.protocol import SkippedImage
from talking_points.stop_requests import stop_if_requested
from tasks.running.manifests import Details, Manifest
from tasks.running.shards import Environment, Inputs, Order, ShardWriter, shard_task
from tasks.running.source_images import listed_pixels
from tasks.running.stages import SPENT
from tasks.running.storage import Storage
from tasks.running.text_shards import Step, check_share, describe_step, request_cache
from tasks.verify import VERIFIED_SCHEMA

if TYPE_CHECKING:
    from talking_points.models.localizer import PointLocalizer

VERSION = 1
"""To be raised with every change to scores or the rows."""

JUDGED_SCHEMA = VERIFIED_SCHEMA.append(pa.field("judge_score", pa.float32()))
"""A finished row with its score; none where the judge gave no usable one."""

_AT_ONCE = 32
"""Rows whose images the localizer is given at a time."""

Scores = dict[str, float | None]


class Settings(Section):
    """What can change the scores. ``weights`` names the state of a localizer's files."""

    step: Step
    seed: int
    crop: CropConfig
    weights: str = ""


@dataclass(frozen=True)
class VerifiedInput(Inputs):
    """One shard of verified rows."""

    verified: Manifest


def run_judge(order: Order[Settings, VerifiedInput]) -> Manifest:
    """Score every row, and reject those below the threshold where there is one."""
    writer, settings = ShardWriter(order), order.settings
    config = cast(JudgeConfig, settings.step.config)
    rows = writer.storage.read_table(order.inputs.verified["path"]).to_pylist()
    details: dict[str, Any] = {}
    if config.by == "localizer":
        release_backend()
        scores, unscored = _located(rows, config, order.environment)
    else:
        scores, unscored, answers = _asked(rows, config, order)
        details = {name: sum(getattr(answer, name) for answer in answers.values()) for name in SPENT}
    kept = []
    for row in rows:
        score = scores.get(row["id"])
        if score is not None and config.reject_below is not None and score < config.reject_below:
            detail = f"a score of {score:g}, below {config.reject_below:g}"
            writer.reject(row, "judged_too_low", detail, row["description"])
        else:
            kept.append(row | {"judge_score": score})
    check_share(writer, len(rows))
    if unscored:
        details["unscored"] = dict(sorted(unscored.items()))
    return writer.commit(pa.Table.from_pylist(kept, schema=JUDGED_SCHEMA), cast(Details, details))


def _asked(
    rows: Sequence[dict[str, Any]], config: JudgeConfig, order: Order[Settings, VerifiedInput]
) -> tuple[Scores, Counter[str], dict[str, Answer]]:
    """Scores by row id, why rows have none, and the answers. Raises ``AnswersPending`` where a batch is to answer."""
    unread: Counter[str] = Counter()

    def requests() -> Iterator[ChatRequest]:
        for row in rows:
            candidate = Candidate.from_row(row)
            try:
                pixels = None if config.shows == "text" else listed_pixels(candidate, order.environment)
            except SkippedImage as skipped:
                unread[skipped.reason] += 1
                continue
            yield judge_request(candidate, row, pixels, config, order.settings.crop, order.settings.seed)

    with share_backend("judge", config) as backend, request_cache(order, config) as cache:
        answers = ask(
            backend, requests(), config, cache, reads=lambda completion, _: read_score(completion, config.scale)
        )
    awaited = sum(answer.pending for answer in answers.values())
    if awaited:
        raise AnswersPending(f"{awaited} of {len(rows)} scores wait for a batch")
    scores = {row: None if answer.error else float(answer.text) for row, answer in answers.items()}
    unread.update(answer.error.reason for answer in answers.values() if answer.error)
    return scores, unread, answers


def _located(
    rows: Sequence[dict[str, Any]], config: JudgeConfig, environment: Environment
) -> tuple[Scores, Counter[str]]:
    """Scores of the localizer: one less the distance between the point that it finds and the true one.

    The distance is normalised as in evaluation, so that a score above 1 - t means a hit of PCK@t.
    """
    # They come with torch, which only this kind of judge needs.
    from talking_points.evaluation.pck import distances

    scores: Scores = {}
    unread: Counter[str] = Counter()
    for start in range(0, len(rows), _AT_ONCE):
        stop_if_requested()
        shown, images = [], []
        for row in rows[start : start + _AT_ONCE]:
            try:
                images.append(listed_pixels(Candidate.from_row(row), environment))
                shown.append(row)
            except SkippedImage as skipped:
                unread[skipped.reason] += 1
        if not shown:
            continue
        with _localizing:
            localizer = _load(str(config.model), config.revision, config.device)
            found = localizer.localize(images, [row["description"] for row in shown], batch_size=config.batch_size)
        away = distances(
            found,
            [row["keypoint"] for row in shown],
            [(row["image_width"], row["image_height"]) for row in shown],
            np.array([row["object_bbox"] for row in shown]),
            config.normalizer,
        )
        scores |= {row["id"]: max(0.0, 1 - float(one)) for row, one in zip(shown, away, strict=True)}
    return scores, unread


_localizing = threading.Lock()
_loaded: dict[tuple[str, str | None, str], PointLocalizer] = {}


def _load(model: str, revision: str | None, device: str) -> PointLocalizer:
    """The one localizer of this process."""
    import torch

    from talking_points.models.localizer import PointLocalizer

    key = (model, revision, device)
    if key not in _loaded:
        _loaded.clear()
        place = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        loaded: PointLocalizer = PointLocalizer.from_pretrained(model, revision=revision)
        _loaded[key] = loaded.to(place).eval()
    return _loaded[key]


def release_judge() -> None:
    """Free the localizer, if this process holds one."""
    with _localizing:
        _loaded.clear()


def describe_judge(order: Any, storage: Storage, sides: Iterator[NDArray[np.uint8]]) -> dict[str, Any]:
    """What the manifest says about the scores of the rows that are published: who gave them, and how they lie.

    ``order`` is that of assembling, ``sides`` are those of the rows of each shard, 0 for one that is not published.
    """
    config: JudgeConfig = order.settings.config.judge
    tables = [
        storage.read_table(made["path"], columns=["source", "judge_score"]).filter(pa.array(own > 0))
        for made, own in zip(order.inputs.judged, sides, strict=True)
    ]
    rows = pa.concat_tables(tables)
    scores = rows["judge_score"].to_pylist()
    by_source: dict[str, list[float | None]] = {}
    for source, score in zip(rows["source"].to_pylist(), scores, strict=True):
        by_source.setdefault(source_label(source), []).append(score)
    details: list[Any] = [made["details"] for made in order.inputs.judged]
    unscored = sum((Counter(found.get("unscored", {})) for found in details), Counter[str]())
    who = {name: value for name, value in vars(config).items() if name in _TOLD[config.by]}
    if config.by == "localizer":
        who["revision"] = identify_model(str(config.model), config.revision).revision
    return {
        **hide_secrets(who),
        "prompt_sha256": describe_step(order.settings.config, "judge").prompt_sha256 if config.by == "model" else None,
        "sources": {name: _mean(own) for name, own in by_source.items()},
        "histogram": histogram(scores, config),
        "unscored": dict(sorted(unscored.items())),
    }


_TOLD = {
    "model": ("by", "backend", "model", "revision", "scale", "shows", "reject_below"),
    "localizer": ("by", "model", "revision", "normalizer", "reject_below"),
}
BINS = 10
"""Of the scores of a localizer, between 0 and 1."""


def histogram(scores: Sequence[float | None], config: JudgeConfig) -> dict[str, int]:
    """How many rows have each score of a model, or lie in each tenth of a localizer's."""
    found = [score for score in scores if score is not None]
    if config.by == "model":
        least, most = config.scale
        return {str(score): found.count(score) for score in range(least, most + 1)}
    places = Counter(min(int(score * BINS), BINS - 1) for score in found)
    return {f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}": places[place] for place in range(BINS)}


def _mean(scores: Sequence[float | None]) -> dict[str, Any]:
    found = [score for score in scores if score is not None]
    return {"rows": len(scores), "scored": len(found), "mean": round(sum(found) / len(found), 4) if found else None}


judge = shard_task("judge")(run_judge)
