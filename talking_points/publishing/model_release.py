"""Publishing a trained model: what transformers loads it from, and its card, in one commit under one tag."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from talking_points.errors import InputError
from talking_points.evaluation.reports import Report
from talking_points.models.kinds import KINDS
from talking_points.models.model_folders import tell_kind
from talking_points.nearby import repository_in
from talking_points.publishing.answerer_cards import select_pose_report
from talking_points.publishing.card_content import CONTENT, STAGE, read_content, render_content
from talking_points.publishing.hub import REPOSITORY, Repository, explaining
from talking_points.publishing.release import ReleaseError, content_sha256
from talking_points.publishing.segmenter_card import read_segmentation_report
from talking_points.redaction import is_secret_name, redact
from talking_points.regular_files import check_regular, homes, read_text
from talking_points.tensor_files import read_metadata
from talking_points.whole_files import read_json

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What of a training folder goes up. Checkpoints, optimizer states and logs stay."""

_SHOWN = ("README.md", "curves.png")
_ROLES = {kind.class_name: role for role, kind in KINDS.items()}
_LEAST = 16
"""Characters of a secret among the words of a vocabulary."""
_LOCAL = re.compile(r"(?:/|~/|[A-Za-z]:[\\/]|\\\\)[^/\\]+[/\\].*|file://.*", re.DOTALL)
"""Names of files and folders of one machine."""


@dataclass(frozen=True)
class ModelRelease:
    """A model as it goes up: ``files`` by name, its ``card``, what else the card shows, and a ``tag`` that names
    exactly these weights."""

    files: dict[str, Path]
    card: str
    tag: str
    shown: dict[str, Path]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file that goes up."""
        files = self.files | self.shown
        return {"README.md": len(self.card.encode())} | {name: file.stat().st_size for name, file in files.items()}


def prepare_model(folder: Path, repo: str, reports: Sequence[Path] = ()) -> ModelRelease:
    """Check the finished model in ``folder`` and write its card for the repository ``repo`` ("org/name").

    ``reports`` are files of ``talking-points evaluate``, whose figures stand in the card, of an answerer one file of
    ``evaluate-poses``; without any, those that the folder's own card has. Raises ``ReleaseError`` and ``ConfigError``
    for what must not go up: no model, one that is not whole, one with names of files of this machine or with secrets
    in what describes it.
    """
    if not re.fullmatch(REPOSITORY, repo):
        raise ReleaseError(f"expected a repository of the form org/name, found '{repo}'{repository_in(repo)}")
    found = tell_kind(folder)
    if found not in _ROLES:
        raise ReleaseError(
            f"expected a {' or a '.join(kind.title for kind in KINDS.values())} in {folder}, found a {found}"
        )
    files = model_files(folder)
    for name, file in files.items():
        _refuse_private(name, file)
    for name in (CONTENT, STAGE):
        if os.path.lexists(folder / name):
            _own_file(folder, folder / name)
    content = read_content(folder, _ROLES[found])
    if reports and found == KINDS["answerer"].class_name:
        content = content | {"poses": _pose_report(reports)}
    elif reports:
        read = _segmentation_report if found == KINDS["segmenter"].class_name else _report
        content = content | {"reports": [read(path) for path in reports]}
    tag = hashlib.sha256(json.dumps({name: content_sha256(files[name]) for name in sorted(files)}).encode())
    card = _card(content, repo, folder)
    if redact(card) != card:
        raise ReleaseError(f"the card of {folder} holds what looks like a secret: take it out of card.json first")
    return ModelRelease(files, card, f"model-{tag.hexdigest()[:12]}", _shown_files(folder, card))


def _shown_files(folder: Path, card: str) -> dict[str, Path]:
    """What the card shows, by name."""
    return {"curves.png": _own_file(folder, folder / "curves.png")} if "(curves.png)" in card else {}


def _own_file(folder: Path, path: Path) -> Path:
    """``path``, a regular file in the model's folder or, of the Hub's cache, of the same repository.

    Raises ``ReleaseError`` for what a link would take from elsewhere.
    """
    try:
        real, home = path.resolve(strict=True), folder.resolve(strict=True)
        check_regular(real)
    except (OSError, RuntimeError) as error:
        raise ReleaseError(f"{path} cannot go up ({error}): put the file there, or remove it") from None
    if not any(real.is_relative_to(place) for place in homes(home)):
        raise ReleaseError(f"{path} is a link to {real}, outside the model's folder: put the file itself there")
    return path


def _card(content: dict[str, Any], repo: str, folder: Path) -> str:
    try:
        return render_content(content, repo, folder)
    except InputError as error:
        raise ReleaseError(str(error)) from error


def _report(path: Path) -> dict[str, Any]:
    """A report without its predictions."""
    try:
        Report.load(path)
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"cannot read {path}: {error}; expected a report that talking-points evaluate wrote"
        ) from error
    report: dict[str, Any] = read_json(path, "evaluate again")
    report.pop("predictions", None)
    return report


def _pose_report(paths: Sequence[Path]) -> dict[str, Any]:
    """What a card shows of the one report of an answerer."""
    if len(paths) != 1:
        raise ReleaseError(f"expected one report of talking-points evaluate-poses, found {len(paths)}: name one")
    try:
        return select_pose_report(json.loads(read_text(paths[0])))
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(
            f"cannot read {paths[0]}: {error}; expected the report.json that talking-points evaluate-poses wrote"
        ) from error


def _segmentation_report(path: Path) -> dict[str, Any]:
    try:
        return read_segmentation_report(path, read_json(path, "evaluate again"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"cannot read {path}: {error}") from error


def _refuse_private(name: str, file: Path) -> None:
    """Raise ``ReleaseError`` for a name of this machine or a secret in a file's settings, or in a header of weights."""
    if name.endswith(".safetensors"):
        values: Any = read_metadata(file)
    elif name.endswith(".json"):
        values = read_json(file, "train the model again, or fetch it anew")
    else:
        values = read_text(file)
    for key, text in _texts(values):
        if name == "tokenizer.json" and len(text) < _LEAST:
            continue  # of the vocabulary
        # Words of a tokenizer have names such as keypoint_token, and are short.
        if redact(text) != text or (is_secret_name(key) and re.fullmatch(r"[\w.+/=-]{16,}", text)):
            raise ReleaseError(f"{file} holds what looks like a secret ({key}): take it out of the file first")
        if name != "tokenizer.json" and _LOCAL.fullmatch(text):
            raise ReleaseError(f"{file} names {text[:120]!a}, a place of this machine: take it out of the file first")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a value of JSON, names among them, each with the key that it stands behind."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield key, name
            yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)


def publish_model(
    folder: Path, repo: str, *, tag: str, card: str, private: bool = True, token: SecretStr | None = None
) -> str:
    """Upload the model in ``folder`` with its ``card`` to the model repository ``repo``; returns its address there.

    ``folder`` is what ``save_pretrained`` wrote; ``curves.png`` goes along where the card shows it. Every file is
    compared by size and digest before the commit is tagged. A model that is there already under its ``tag`` is left
    alone; a card that was written anew since is renewed at the repository's head.
    Raises ``ReleaseError`` for a folder without a model, ``PublishError`` when the Hub or the connection refuses.
    """
    model: dict[str, Path | str] = dict(model_files(folder))
    shown: dict[str, Path | str] = {"README.md": card, **_shown_files(folder, card)}
    files = model | shown
    with explaining(f"cannot publish {repo}"):
        repository = Repository.connect(repo, "model", token)
        url, before = repository.open(private)
        # Shards of a larger model that was here before would otherwise be left beside those of this one.
        stale = [path for path in repository.paths(before) if _is_ours(path) and path not in files]
        commit = repository.commit("Upload the model", files, stale, before)
        repository.check(commit, files, ours=_is_ours)
        repository.tag(tag, commit, model)
    return f"{url}/tree/{tag}"


def model_files(folder: Path) -> dict[str, Path]:
    """The files that make up the model in ``folder``, by name. Raises ``ReleaseError`` otherwise, and for links."""
    found = [path for path in sorted(folder.glob("*")) if _is_model_file(path.name)]
    files = {path.name: _own_file(folder, path) for path in found}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise ReleaseError(
            f"no model in {folder}: expected config.json and model*.safetensors, as training writes them at its end"
        )
    return files


def _is_model_file(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in MODEL_FILES)


def _is_ours(path: str) -> bool:
    return path in _SHOWN or _is_model_file(path)
