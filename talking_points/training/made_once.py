"""A stage of training in a folder of its own: made once, by one process at a time, and only taken when it is whole.

::

    started.json    what the weights depend on; a folder that belongs to other settings is refused
    stage.json      written last: the fingerprint, which kind of model this is, and the digests of its files

Run again with the same settings a finished stage is taken as it is, an interrupted one goes on from its last
checkpoint; its seconds are those of all processes that worked on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from talking_points.config import ConfigError, fingerprint, list_changes
from talking_points.locks import only_writer, refuse_links
from talking_points.step_progress import PROGRESS, Spent, recording
from talking_points.training.checkpoints import Number
from talking_points.whole_files import advising, file_sha256, read_json, write_json

STARTED, FINISHED = "started.json", "stage.json"
_WEIGHTS = ("*.safetensors", "*.json")
_NOT_WEIGHTS = {STARTED, FINISHED, "trainer_state.json", "card.json"}

Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


@with_config(ConfigDict(strict=True, extra="allow"))
class _Finished(TypedDict):
    kind: NotRequired[Annotated[str, Field(max_length=80)]]
    seconds: Seconds
    cpu_seconds: NotRequired[Seconds]
    metrics: dict[str, Number]
    files: NotRequired[dict[Annotated[str, Field(pattern=r"^[\w][\w.-]*$")], str]]


_FORM: TypeAdapter[_Finished] = TypeAdapter(_Finished)
_SETTINGS: TypeAdapter[dict[str, Any]] = TypeAdapter(Annotated[dict[str, Any], Field(strict=True)])


def make_once(
    folder: Path, kind: str, settings: dict[str, Any], work: Callable[[Path], dict[str, float]]
) -> dict[str, Any]:
    """The result of a stage: taken from ``folder``, or made by ``work(folder)``, which returns its last values.

    ``kind`` is the stage's row in ``stages.STAGES``, ``settings`` all that its weights depend on, as plain JSON values.
    Raises ``ConfigError`` for a folder of other settings and for one whose files are no longer what they were, and
    ``FolderInUseError`` where another training writes to it. Of processes that train together the first one answers
    for all.
    """
    from talking_points.processes import process_state  # with torch, which those who only look do without

    refuse_links(folder)
    state = process_state()
    with only_writer(folder, "a training") if state.is_main_process else nullcontext():
        with state.main_process_first():
            found = find_finished(folder, kind, settings)
            if found is not None:
                return {**found, "reused": True}
            if state.is_main_process and not (folder / STARTED).exists():
                _write(folder / STARTED, settings)
        spent = Spent(folder)
        with recording(spent) if state.is_main_process else nullcontext():
            metrics = work(folder)
        result = {
            **_identity(folder, settings),
            "kind": kind,
            **spent.so_far(),
            "metrics": metrics,
        }
        if state.is_main_process:
            _write(folder / FINISHED, {**result, "files": digests(folder)})
            (folder / PROGRESS).unlink(missing_ok=True)
        return {**result, "reused": False}


def find_finished(folder: Path, kind: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The result that a finished stage has left, or None where there is none yet.

    Raises ``ConfigError`` for a folder of other settings or another kind, and for files that are missing or changed.
    """
    if not (folder / STARTED).exists():
        return None
    again = f"remove the file and run again to go on from the last checkpoint in {folder}"
    refuse_other_settings(folder, settings)
    if not (folder / FINISHED).exists():
        return None
    result = read_finished(folder, again)
    if result.get("kind", kind) != kind:  # the first folders do not say
        raise ConfigError(f"{folder} holds a stage '{result['kind']}', expected '{kind}': choose another output")
    expected = result.pop("files", {})
    found = digests(folder, expected)
    changed = [name for name in sorted(expected) if found.get(name) != expected[name]]
    if changed or not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"{folder} holds a finished stage whose files are missing or changed ({', '.join(changed) or 'weights'}): "
            f"restore them, or remove {folder / FINISHED} and run again to go on from the last checkpoint"
        )
    # Where it is and what it depends on is known; a card would be written to the place that the file names.
    return {**result, **_identity(folder, settings)}


def read_finished(folder: Path, advice: str) -> dict[str, Any]:
    """What a finished stage says of itself, whoever wrote it. Raises ``InputError`` with the file and the advice."""
    result: dict[str, Any] = read_json(folder / FINISHED, advice, _FORM)
    return {"cpu_seconds": result["seconds"], **result}


def _identity(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    return {"stage": folder.name, "path": str(folder), "fingerprint": fingerprint(settings)}


def refuse_other_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raise ``ConfigError`` for a folder whose stage was begun under other settings."""
    before = read_json(folder / STARTED, "remove the folder to train anew, or choose another output", _SETTINGS)
    if before != settings:
        changes = "; ".join(change[:300] for change in list_changes(before, settings)[:8])
        raise ConfigError(f"{folder} holds a stage of another configuration ({changes}): choose another output")


def digests(folder: Path, names: dict[str, str] | None = None) -> dict[str, str]:
    """sha256 of the model's files by name: those that are there, or of ``names`` those that are still there."""
    if names is None:
        paths = [path for pattern in _WEIGHTS for path in folder.glob(pattern) if path.name not in _NOT_WEIGHTS]
    else:
        paths = [folder / name for name in names if (folder / name).is_file()]
    found = {}
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        found[path.name] = file_sha256(path)
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    with advising(str(path), "make room and run again"):
        write_json(path, content)
