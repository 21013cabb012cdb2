"""The output that a command is given: a folder, or a store that answers."""

from __future__ import annotations

from pathlib import Path

from talking_points.config import ConfigError
from talking_points.nearby import folder_near
from talking_points.network import answer_within
from tasks.running.storage import Storage

_STORE_PATIENCE = 10.0
"""Seconds that an object store gets for its first answer."""


def open_output(output: str) -> Storage:
    """The storage of an output, which need not exist yet. Raises ``ConfigError`` where no folder can ever be."""
    wanted = "expected a folder or an fsspec URL as output"
    try:
        storage = Storage(output)
        place = Path(storage.path())
        # A link that leads nowhere, or to itself, does not exist and is in the way all the same.
        places = (place, *place.parents)
        blocked = [path for path in places if (path.is_symlink() or path.exists()) and not path.is_dir()]
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(f"{wanted}, found {output!r}: {error}") from error
    if storage.is_local and blocked:
        raise ConfigError(f"{wanted}, found the file {blocked[0]}{folder_near(place)}; choose another output")
    if not storage.is_local:
        _check_store(storage, output)
    return storage


def _check_store(storage: Storage, output: str) -> None:
    """Ask a store once: its own client tries for minutes, and each kind of store has errors of its own."""
    try:
        answer_within(_STORE_PATIENCE, storage.names)
    except Exception as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"expected a store that this machine may read as output, found {output!r} out of reach ({reason}): check "
            "its name, the credentials and the endpoint, for S3 the variables AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
        ) from error
