"""One commit for all that a process reads of a repository: a branch may move between two of its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from talking_points.hub_client import bounded_hub

TIMEOUT = 10.0
"""Seconds that the Hub has for its answer; nobody waits longer to learn what may be known on this machine already."""

_found: dict[tuple[str, ...], str] = {}


def pinned(name: str | Path, revision: str | None = None, kind: Literal["model", "dataset"] = "model") -> str | None:
    """The commit that ``revision`` of a repository named when this process asked first.

    ``revision`` itself for a folder, for a commit, and where neither the Hub nor an earlier download tells.
    """
    if Path(name).exists() or re.fullmatch("[0-9a-f]{40}", revision or ""):
        return revision
    from huggingface_hub import constants

    asked = (constants.ENDPOINT, kind, str(name), revision or "")
    if asked not in _found:
        commit = hub_commit(str(name), revision, kind) or downloaded_commit(str(name), revision, kind)
        if commit is None:
            return revision
        _found[asked] = commit
    return _found[asked]


def pin(name: str | Path, options: dict[str, Any]) -> None:
    """Have options of ``from_pretrained`` name a commit, so that all files are of one state of the repository."""
    if options.get("local_files_only"):
        return
    commit = pinned(name, options.get("revision"))
    if commit is not None:
        options["revision"] = commit


def hub_commit(name: str, revision: str | None, kind: str = "model") -> str | None:
    """What the Hub says; None where it does not tell."""
    from huggingface_hub import HfApi

    bounded_hub()
    try:
        found = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=TIMEOUT)
    except Exception:  # offline, unknown, gated or slow: each way the answer is that the Hub does not tell
        return None
    return found.sha


def downloaded_commit(name: str, revision: str | None, kind: str = "model") -> str | None:
    """The commit of the snapshot that an earlier download left: its folder is named after it."""
    from huggingface_hub import snapshot_download

    bounded_hub()
    try:
        folder = snapshot_download(
            name, repo_type=kind, revision=revision, local_files_only=True, allow_patterns=["config.json"]
        )
    except Exception:  # not downloaded, or the name is no Hub id
        return None
    return Path(folder).name
