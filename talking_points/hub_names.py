"""Whether a name can be a repository of the Hugging Face Hub, and whether it can be had from here, within seconds.

The Hub's own client tries for a minute before it says that there is no network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from talking_points.nearby import folder_near, repository_in
from talking_points.network import unreachable


def unavailable(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """Why the repository ``name`` cannot be had now, or None: it is in the cache, or the Hub can be asked."""
    from huggingface_hub import constants

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(("./", "../")):
        meant = repository_in(name) or folder_near(name, "config.json" if kind == "model" else "manifest.json")
        what = "a file" if Path(name).is_file() else "no folder"
        return f"it is {what} here, and no name of a repository (org/name) either{meant}"
    if Path(constants.HF_HUB_CACHE, f"{kind}s--{name.replace('/', '--')}", "snapshots").is_dir():
        return None
    if constants.HF_HUB_OFFLINE:
        return "it is no folder here, it is not in the cache of the Hub, and HF_HUB_OFFLINE is set"
    if unreachable(constants.ENDPOINT):
        return f"it is no folder here, it is not in the cache of the Hub, and {constants.ENDPOINT} cannot be reached"
    return None
