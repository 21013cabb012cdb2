"""Files that are there as a whole or not at all, whenever a process is killed or a disk is full."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_points.errors import InputError, RunError, TrainingStoppedError
from talking_points.json_depth import DEPTH, check_depth
from talking_points.regular_files import open_regular, read_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TEMPORARY = ".part"
"""Ending of a file that is still being written; its name begins with a dot."""


@contextmanager
def writing_whole(path: str | Path) -> Iterator[Path]:
    """A path to write to, in the same folder; it becomes ``path`` when the block ends without an error.

    What was written is fsynced before it takes the name. The folder is made. The file's mode is the umask's, also where
    the library that writes has another in mind.
    """
    path = Path(path)
    temporary = new_file(path)
    try:
        mode = temporary.stat().st_mode
        yield temporary
        _set_mode(temporary, mode)
        _sync(temporary, os.O_RDWR)  # Windows syncs no file that is open for reading only
        temporary.replace(path)
        if os.name == "posix":
            _sync(path.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


def new_file(path: Path) -> Path:
    """An empty file beside ``path``, with the mode of the umask and a name that nobody can have guessed.

    The folder is made; no link that lies in its place is followed. Whoever calls this removes or renames the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:100]}.{uuid.uuid4().hex}{TEMPORARY}"
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def take_umask(paths: Iterable[Path]) -> None:
    """Give files that a library has just written for their writer alone the mode that the umask asks for."""
    for path in paths:
        probe = new_file(path)
        try:
            _set_mode(path, probe.stat().st_mode)
        finally:
            probe.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, whole, with the same bytes on every system."""
    with writing_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, whole."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | Path, advice: str, form: TypeAdapter[Any] | None = None, depth: int = DEPTH) -> Any:
    """The value in a JSON file, as ``form`` takes it where one is given: somebody else may have written it.

    Raises ``InputError`` with the path and the advice where it is torn, nested without end or of another form.
    """
    try:
        value = json.loads(read_text(path))
        check_depth(value, depth)
        return value if form is None else form.validate_python(value)
    except (ValueError, RecursionError) as error:
        reason = describe_misfit(error)
        raise InputError(f"{path} is damaged, perhaps cut off in the middle ({reason}): {advice}") from error


def describe_misfit(error: Exception) -> str:
    """What is wrong with a value that was read, in a few words: the first field that does not fit its form."""
    from pydantic import ValidationError  # not by those who only write

    if not isinstance(error, ValidationError):
        return str(error)[:300]
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:200] or 'the whole'}: {first['msg'][:100]}"


def file_sha256(path: Path, limit: int | None = None) -> str:
    """Hex digest of the content of a file of at most ``limit`` bytes. Raises ``OSError``, for a pipe or device too."""
    with open_regular(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def advising(what: str, advice: str) -> Iterator[None]:
    """Around the writing of what a training leaves: ``TrainingStoppedError`` with the advice where it fails.

    Of a full disk PyTorch tells by a ``RuntimeError``, safetensors by an error of its own.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingStoppedError(f"cannot write {what} ({error}): {advice}") from error


@contextmanager
def going_on(place: str | Path | None, advice: str) -> Iterator[None]:
    """Around the reading of what a training left: ``TrainingStoppedError`` with the advice, whatever a library says."""
    try:
        yield
    except (InputError, RunError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise TrainingStoppedError(f"cannot go on from {place} ({type(error).__name__}: {reason}): {advice}") from error


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode != mode:
        path.chmod(stat.S_IMODE(mode))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
