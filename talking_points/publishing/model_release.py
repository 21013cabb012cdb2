"""Publishing a trained model: what transformers loads it from, and its card, in one commit under one tag."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from pydantic import SecretStr

from talking_points.publishing.hub import Repository, explaining
from talking_points.publishing.release import ReleaseError

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
    shown: dict[str, Path | str] = {"README.md": card}
    if "(curves.png)" in card:
        shown["curves.png"] = folder / "curves.png"
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
    """The files that make up the model in ``folder``, by name. Raises ``ReleaseError`` where they do not."""
    files = {path.name: path for path in sorted(folder.glob("*")) if path.is_file() and _is_model_file(path.name)}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise ReleaseError(
            f"no model in {folder}: expected config.json and model*.safetensors, as training writes them at its end"
        )
    return files


def _is_model_file(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in MODEL_FILES)


def _is_ours(path: str) -> bool:
    return path in _SHOWN or _is_model_file(path)
