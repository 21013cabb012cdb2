"""Weights of a repository of the Hub, looked at as those of a folder are, before a library opens them.

They are fetched as the library would fetch them a moment later, which then finds them in the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from talking_points.models.model_limits import read_setting
from talking_points.models.weight_files import check_weights

_WHOLE = "model.safetensors"
_QUIET: dict[str, Any] = {
    f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "gated_repo", "connection_errors")
}
_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "subfolder")


def check_hub_weights(name: str | Path, options: dict[str, Any]) -> None:
    """Refuse weights that are not those of their settings; ``options`` are those of ``from_pretrained``.

    Nothing is done for a folder, and where there is no such file: what is missing is the library's to say. Raises
    ``InputError`` with the file, and what fetching raises.
    """
    if Path(name).exists():
        return
    hub = {key: options[key] for key in _ARGUMENTS if options.get(key) is not None}
    found = cached_file(str(name), _WHOLE, **hub, **_QUIET)
    if found is None:
        index = cached_file(str(name), f"{_WHOLE}.index.json", **hub, **_QUIET)
        if index is None:
            return
        check_weights(Path(index).parent, None)  # names elsewhere are not even asked for
        get_checkpoint_shard_files(str(name), index, **hub)
        found = index
    cached_file(str(name), "config.json", **hub, **_QUIET)
    folder = Path(found).parent
    check_weights(folder, read_setting(folder / "config.json"))
