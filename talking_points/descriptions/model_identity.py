"""Which weights a model name stands for: the commit of a Hub repository, a digest of local files.

A branch such as ``main`` moves, and a folder can be written again. A dataset therefore says which state of a model
wrote its texts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from talking_points.errors import InputError
from talking_points.hub_commits import downloaded_commit, hub_commit
from talking_points.regular_files import open_regular, read_bytes

_HEAD = 2**20
"""Bytes of a single-file model that are read: its header with all settings and the start of its tensors."""


@dataclass(frozen=True)
class ModelIdentity:
    """``revision``: a commit (40 hex digits), ``sha256:`` and 16 digits, or what was configured.

    ``resolved`` says whether it fixes the weights. A branch that nobody could look up does not.
    """

    revision: str | None
    resolved: bool


def identify_model(model: str, revision: str | None = None) -> ModelIdentity:
    """Resolve a Hub id, a model folder or a model file.

    The Hub is asked first, then the snapshots that are on this machine already. Where both fail, the configured
    revision stays, unresolved: that is no reason to stop a build whose models are at hand.
    """
    path = Path(model)
    if path.exists():
        try:
            return ModelIdentity(f"sha256:{_digest(path)}", True)
        except OSError as error:
            raise InputError(f"cannot read the model {model} ({error}): expected a folder or a file") from error
    if path.is_absolute() or path.suffix == ".gguf":
        return ModelIdentity(revision, False)
    commit = hub_commit(model, revision) or downloaded_commit(model, revision)
    return ModelIdentity(commit or revision, commit is not None)


def _digest(path: Path) -> str:
    """Of a folder: its JSON files (configuration, weight index) and the names and sizes of its weights. Of a file:
    its size and its head. Reading 40 GB to name them would take longer than some builds.
    """
    digest = hashlib.sha256()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.suffix == ".json":
            digest.update(f"{file.name}\x1f".encode() + read_bytes(file) + b"\x1e")
        elif file.suffix in {".safetensors", ".gguf", ".bin"}:
            with open_regular(file) as weights:
                digest.update(f"{file.name}\x1f{file.stat().st_size}\x1f".encode() + weights.read(_HEAD) + b"\x1e")
    return digest.hexdigest()[:16]
