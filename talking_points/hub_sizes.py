"""What a run would fetch from the Hugging Face Hub, and how large it is, before any of it is fetched."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from talking_points.hub_names import unavailable

WEIGHTS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""What is fetched of a model's repository."""


def to_download(
    name: str, kind: Literal["model", "dataset"], patterns: Sequence[str], revision: str | None = None
) -> int | None:
    """Bytes of the files of a repository that are not in the cache; 0 for a folder of this machine.

    None where nobody tells: without a network, or for a repository that may not be read.
    """
    if Path(name).exists():
        return 0
    if unavailable(name, kind) is not None:
        return None
    import httpx2
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
        info = ask(name, revision=revision, files_metadata=True, timeout=10)
    except (httpx2.HTTPError, OSError, ValueError):
        return None
    wanted = [file for file in info.siblings or () if any(fnmatch.fnmatch(file.rfilename, p) for p in patterns)]
    missing = [
        file
        for file in wanted
        if not isinstance(try_to_load_from_cache(name, file.rfilename, repo_type=kind, revision=info.sha), str)
    ]
    return sum(file.size or 0 for file in missing)
