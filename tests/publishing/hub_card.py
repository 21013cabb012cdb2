"""The Hub's check of a card's metadata, as far as it documents it for the keys that are used here."""

from __future__ import annotations

import re

import yaml

_LICENSES = {"other", "mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "unknown"}
_SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M"}
_TASKS = {
    "image-to-text",
    "keypoint-detection",
    "visual-question-answering",
    "image-text-to-text",
    "image-segmentation",
}

_NAME = r"(?:[\w-]+/)?[\w.-]+"


def card_problems(text: str) -> list[str]:
    """What the Hub's check of a card's metadata would object to; the rules it documents for the keys used."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not match:
        return ["no YAML metadata block"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"metadata is not YAML: {error}"]
    problems = []
    if data.get("license") not in _LICENSES:
        problems.append(f'"license" must be one of the Hub\'s identifiers, not {data.get("license")!r}')
    if data.get("license") == "other" and not data.get("license_name"):
        problems.append('"license_name" is needed with "license: other"')
    problems += [f'"size_categories": {size!r}' for size in data.get("size_categories", []) if size not in _SIZES]
    problems += [f'"task_categories": {task!r}' for task in data.get("task_categories", []) if task not in _TASKS]
    if any(not re.fullmatch(r"[a-z]{2,3}", language) for language in data.get("language", [])):
        problems.append('"language" must hold ISO 639 codes')
    if data.get("pipeline_tag", "image-to-text") not in _TASKS:
        problems.append(f'"pipeline_tag": {data["pipeline_tag"]!r}')
    for key in ("datasets", "base_model"):
        problems += [f'"{key}": {name!r}' for name in data.get(key, []) if not re.fullmatch(_NAME, str(name))]
    for model in data.get("model-index", []):
        problems += [] if model.get("name") else ['every entry of "model-index" needs a "name"']
        for result in model["results"]:
            problems += [] if re.fullmatch(_NAME, result["dataset"]["type"]) else ['"dataset.type" must be a Hub name']
            problems += [] if result["task"].get("type") in _TASKS else ['"task.type" must be one of the Hub\'s tasks']
            if not all(metric.get("type") and metric.get("value") is not None for metric in result["metrics"]):
                problems.append('every entry of "metrics" needs "type" and "value"')
    for config in data.get("configs", []):
        if not isinstance(config.get("config_name"), str) or not config.get("data_files"):
            problems.append('every entry of "configs" needs "config_name" and "data_files"')
    return problems
