"""Writing descriptions of keypoints: asks the model, lets the descriptor look, checks, and leaves one file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.config import ConfigError
from talking_points.descriptions.asking import ask, share_backend
from talking_points.descriptions.keypoint_facts import facts_of, has_facts
from talking_points.descriptions.keypoint_texts import RULES, VERSION, digest, texts_of_rules, write_texts
from talking_points.descriptions.keypoint_writing import (
    Draft,
    Prompt,
    keypoint_requests,
    merge_seen,
    read_keypoint_texts,
)
from talking_points.descriptions.request_cache import RequestCache
from talking_points.examples.keypoint_authors import DescribeKeypointsConfig, choose_support, chosen_sets
from talking_points.examples.pose_files import open_poses, pixels_of
from talking_points.locks import only_writer
from talking_points.sources.keypoint_sets import KeypointSet
from talking_points.whole_files import write_json

TEXTS, REPORT, ANSWERS = "texts.jsonl", "report.json", "answers.sqlite"


@task(name="keypoint-texts", persist_result=False, cache_policy=NO_CACHE)
def write_keypoint_texts(config: DescribeKeypointsConfig) -> dict[str, Any]:
    """Write ``texts.jsonl`` and ``report.json`` into the output; returns the report.

    Run again after an interruption, finished answers are taken from the cache beside them.
    """
    with only_writer(config.output, "a writing of descriptions"):
        sets = chosen_sets(config)
        report = _by_rules(config, sets) if config.author == RULES else _by_models(config, sets)
        write_json(config.output / REPORT, report)
        return report


def _by_rules(config: DescribeKeypointsConfig, sets: list[KeypointSet]) -> dict[str, Any]:
    bare = [one.key for one in sets if not has_facts(one)]
    if bare:
        raise ConfigError(
            f"author rules: expected sets of MP-100, of which there are facts; found {', '.join(bare[:5])}: let a "
            "language model write about these (author=model)"
        )
    rows = texts_of_rules(sets)
    write_texts(rows, config.output / TEXTS)
    texts = {(row.set, row.keypoint): row.text for row in rows}
    return _report(config, len(rows), digest(texts), {one.key: {"texts": len(one)} for one in sets})


def _by_models(config: DescribeKeypointsConfig, sets: list[KeypointSet]) -> dict[str, Any]:
    drafts = [Draft(one) for one in sets]
    support: dict[str, Any] = {}
    if config.author == "descriptor":
        support = _look(config, drafts)
        drafts = [draft for draft in drafts if draft.keypoints.key in support]
    if config.text.backend != "rules":
        _ask(config, drafts)
    rows, told = [], {}
    for draft in drafts:
        key, refused = draft.keypoints.key, dict(draft.problems)
        composed = draft.compose_rest() if config.compose_refused and has_facts(draft.keypoints) else []
        provenance = json.dumps({"model": config.text.model, "support": support.get(key)})
        rows += draft.rows(_author(config), VERSION, provenance, composed)
        told[key] = {
            "texts": len(draft.texts),
            "composed": len(composed),
            "missing": len(draft.keypoints) - len(draft.texts),
            "refused": refused,
            **({"support": support[key]} if key in support else {}),
        }
    write_texts(rows, config.output / TEXTS)
    return _report(config, len(rows), digest({(row.set, row.keypoint): row.text for row in rows}), told)


def _author(config: DescribeKeypointsConfig) -> str:
    name = config.text.model if config.author == "model" else f"descriptor {Path(str(config.descriptor)).name}"
    return Path(str(name)).name if Path(str(name)).exists() else str(name)


def _report(config: DescribeKeypointsConfig, rows: int, fingerprint: str, sets: dict[str, Any]) -> dict[str, Any]:
    return {
        "author": config.author,
        "file": str(config.output / TEXTS),
        "texts": rows,
        "digest": fingerprint,
        "composed": sum(one.get("composed", 0) for one in sets.values()),
        "missing": sum(one.get("missing", 0) for one in sets.values()),
        "sets": sets,
    }


def _ask(config: DescribeKeypointsConfig, drafts: Iterable[Draft]) -> None:
    """Ask for the open texts, several times for those that are refused."""
    by_key = {draft.keypoints.key: draft for draft in drafts}
    prompt: Prompt = "keypoint_description" if config.author == "model" else "keypoint_merge"
    with share_backend("generate", config.text) as backend, RequestCache(config.output / ANSWERS) as cache:
        for attempt in range(config.rounds):
            requests = [
                request
                for draft in by_key.values()
                for request in keypoint_requests(draft, config.text, config.seed, attempt, prompt)
            ]
            if not requests:
                return
            answers = ask(
                backend, requests, config.text, cache, check_first_window=not attempt, reads=read_keypoint_texts
            )
            for request in requests:
                answer = answers[request.id]
                draft = by_key[request.id.rsplit("/", 2)[0]]
                if answer.error is None:
                    draft.take(json.loads(answer.text))
                else:
                    for point in request.facts["points"]:
                        draft.problems[point["name"]] = f"{answer.error.reason}: {answer.error.detail}"


def _look(config: DescribeKeypointsConfig, drafts: Iterable[Draft]) -> dict[str, dict[str, Any]]:
    """Let the descriptor write about every labelled keypoint of one object of each set; returns which objects.

    Without a language model its texts are merged by rules at once. Images are of the training split, so that no text
    comes from an image that a test asks about.
    """
    # It comes with torch, which only this author needs.
    from talking_points.models.descriptor import PointDescriptor

    poses = open_poses(config.poses, None if config.poses.own else "train", config.seed)
    supports = {draft.keypoints.key: choose_support(poses.examples, draft.keypoints) for draft in drafts}
    chosen = {key: found for key, found in supports.items() if found is not None}
    if not chosen:
        raise ConfigError("author descriptor: expected objects of the chosen sets in the training split, found none")
    model = PointDescriptor.from_pretrained(str(config.descriptor))
    images = {one.id: pixels for one, pixels in pixels_of(poses, list(chosen.values()))}
    support = {}
    for draft in drafts:
        one = chosen.get(draft.keypoints.key)
        if one is None:
            continue
        shown = [index for index in range(len(one.visible)) if one.visible[index]]
        texts = model.describe([images[one.id]] * len(shown), one.points[shown])
        draft.seen = dict(zip((draft.keypoints.names[index] for index in shown), texts, strict=True))
        support[draft.keypoints.key] = {"category": one.category_name, "image": one.image, "labelled": len(shown)}
        if config.text.backend == "rules":
            known = facts_of(draft.keypoints) if has_facts(draft.keypoints) else {}
            draft.take({n: merge_seen(n, known[n].on if n in known else "", text) for n, text in draft.seen.items()})
    return support
