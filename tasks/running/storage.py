"""Files of a build, on a local folder or any fsspec URL, written so that a crash never leaves half a file.

Locally a file is written under a temporary name in its own folder, fsynced and renamed. On an object store
it is written to a local temporary file and uploaded as a whole, which such stores make visible atomically.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from talking_points.errors import InputError, RunError
from talking_points.json_depth import check_depth
from talking_points.regular_files import IrregularFileError, open_regular
from talking_points.whole_files import TEMPORARY, new_file, writing_whole

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 1 << 20
_LARGEST = 64 << 20
"""Bytes of a local file that is read as a whole, at most."""
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Storage:
    """A root folder and the few operations a build needs on it. All names are relative POSIX paths."""

    def __init__(self, root: str | Path) -> None:
        self.output = str(root)
        if "://" in self.output:
            # Other processes write to the same store: a remembered listing would be a wrong one.
            self.fs, self.root = fsspec.url_to_fs(self.output, use_listings_cache=False, **_limits(self.output))
        else:
            # A path is a path, whatever an URL would make of its characters.
            self.fs, self.root = LocalFileSystem(), os.path.abspath(self.output)  # noqa: PTH100  # without ".."
        self.is_local = isinstance(self.fs, LocalFileSystem)

    @property
    def place(self) -> str:
        """What names it in any process: the URL, or the whole path, as workers may have been started elsewhere."""
        return self.root if "://" not in self.output else self.output

    def path(self, name: str = "") -> str:
        """The full path of ``name``, as the file system of this storage understands it."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str = "") -> list[str]:
        """Names inside ``folder``, sorted; empty when it does not exist."""
        path = self.path(folder)
        try:
            found = self.fs.ls(path, detail=False)  # without a look before it: of an object store each costs a request
        except FileNotFoundError:
            return []
        return sorted(Path(entry).name for entry in found if entry.rstrip("/") != path)

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all it holds; nothing happens when it does not exist."""
        if self.exists(name):
            self.fs.rm(self.path(name), recursive=True)

    def move(self, name: str, target: str) -> None:
        """Put the file or folder ``name`` where ``target`` is, replacing it."""
        self.remove(target)
        source = self.path(name)
        if self.is_local:
            self.fs.mv(source, self.path(target), recursive=True)
            return
        # An object store has no folders to rename: what looks like one is its files.
        for path in self.fs.find(source):
            self.fs.cp_file(path, self.path(target) + path[len(source) :])
        self.remove(name)

    def move_file(self, name: str, target: str) -> None:
        """Put one file where ``target`` is, replacing it."""
        if not self.is_local:
            self.fs.cp_file(self.path(name), self.path(target))
            self.fs.rm_file(self.path(name))
            return
        Path(self.path(target)).parent.mkdir(parents=True, exist_ok=True)
        Path(self.path(name)).replace(self.path(target))

    def sha256(self, name: str) -> str:
        """Hex digest of the file's content. Raises ``FileNotFoundError``."""
        digest = hashlib.sha256()
        try:
            with self._open(name) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except InputError as error:
            raise FileNotFoundError(str(error)) from None
        return digest.hexdigest()

    def size(self, name: str) -> int:
        """Bytes of the file. Raises ``FileNotFoundError``."""
        return int(self.fs.size(self.path(name)))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to; it becomes ``name``, whole, when the block ends without an error."""
        target = Path(self.path(name))
        try:
            if self.is_local:
                with writing_whole(target) as temporary:
                    yield temporary
                return
            with tempfile.TemporaryDirectory(prefix="talking-points-upload-") as folder:
                yield Path(folder, target.name)
                self.fs.put_file(str(Path(folder, target.name)), self.path(name))
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise OSError(
                    error.errno,
                    f"{error.strerror or error} while writing {name}: make room on the disk (status shows what is "
                    "finished and kept), then run the build again",
                ) from error
            raise

    def write_bytes(self, name: str, content: bytes) -> None:
        with self.writing(name) as path:
            path.write_bytes(content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there yet, whole; returns False where somebody else was first.

        Of several writers on several machines one succeeds: a local file gets its name by a link, which is refused
        where the name exists, also on a network file system; an object is put under the condition that there is none.
        """
        target = Path(self.path(name))
        if self.is_local:
            return _create_file(target, content)
        for pause in (0.1, 0.5, 2.0, None):
            try:
                self.fs.pipe_file(self.path(name), content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # Another request for the same name was under way: neither need have succeeded.
                if pause is None or "ConditionalRequestConflict" not in str(error):
                    raise
                time.sleep(pause)
            else:
                return True
        return False

    def read_bytes(self, name: str) -> bytes:
        """The file as a whole. Raises ``FileNotFoundError``, and ``InputError`` for what is no file or too large."""
        if self.is_local:
            with self._open(name) as stream:
                content = bytes(stream.read(_LARGEST + 1))
        else:
            content = self._fetch(name)
        if len(content) > _LARGEST:
            raise InputError(f"{self.path(name)} has more than the {_LARGEST:,} bytes that are read of it")
        return content

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The value in a JSON file. Raises as ``read_bytes``, and ``ValueError`` for what is no JSON."""
        try:
            value = json.loads(self.read_bytes(name))
            check_depth(value)
        except RecursionError:
            raise InputError(f"the values in {self.path(name)} are nested too deeply") from None
        return value

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a small table as one Parquet file."""
        with self.writing(name) as path:
            write_small(path, table)

    def read_table(self, name: str, columns: list[str] | None = None, groups: Sequence[int] | None = None) -> pa.Table:
        """A Parquet file, or some of its row groups. Raises ``FileNotFoundError``, and ``InputError`` for what is no
        file.
        """
        import pyarrow.parquet as pq

        from talking_points.parquet_sizes import refuse_large

        with self._open(name) as stream:
            refuse_large(stream, columns)
            stream.seek(0)
            if groups is not None:
                with pq.ParquetFile(stream) as file:
                    return file.read_row_groups(list(groups), columns=columns)
            return pq.read_table(stream, columns=columns)

    def _open(self, name: str) -> BinaryIO:
        """A file to read: neither a pipe nor a device, which might never end, whatever was there a moment before.

        Raises ``FileNotFoundError``, and ``InputError`` for what is no file.
        """
        path = self.path(name)
        if not self.is_local:
            return cast(BinaryIO, self.fs.open(path, "rb"))
        try:
            return open_regular(path)
        except IrregularFileError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): move it away") from None

    def _fetch(self, name: str) -> bytes:
        """At most one byte more than ``_LARGEST`` of an object, in one request."""
        try:
            return bytes(self.fs.cat_file(self.path(name), start=0, end=_LARGEST + 1))
        except (FileNotFoundError, RunError):
            raise
        except (OSError, ValueError):
            if self.size(name):  # of an empty object a store gives no range
                raise
            return b""

    def remove_temporaries(self) -> None:
        """Delete what a killed run left half written. Call only while holding the build's lock."""
        if self.is_local and Path(self.root).is_dir():
            for leftover in Path(self.root).rglob(f".*{TEMPORARY}"):
                leftover.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Free space where the files go, or None on an object store."""
        if not self.is_local:
            return None
        folder = Path(self.root)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def _limits(url: str) -> dict[str, Any]:
    """Options of the store's file system that put limits around its answers, beside those that fsspec is set to."""
    if not url.startswith("s3"):
        return {}
    from tasks.running.store_limits import BoundedSession

    given = fsspec.config.conf.get(url.partition("://")[0], {}).get("config_kwargs", {})
    return {"config_kwargs": {**given, "http_session_cls": BoundedSession}}


def write_small(path: Path, table: pa.Table) -> None:
    """A small table as one Parquet file at a local path."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def _create_file(target: Path, content: bytes) -> bool:
    temporary = new_file(target)  # others may have to read it: a lease says who writes here
    try:
        with temporary.open("r+b") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with target.open("xb") as exclusive:
                    exclusive.write(content)
            except FileExistsError:
                return False
        return True
    finally:
        temporary.unlink(missing_ok=True)
