"""Files of a dataset folder that somebody else may have written: which are read, where they lie, what is in them.

Every reader of a dataset goes through here. A name is relative and one of the few that a dataset has; the file lies
inside the folder, or where the Hub's cache keeps the files of that repository; its columns are compared with the schema
before a row is read, and nothing in a row or a card makes its reader open another file or address.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from talking_points.config import ConfigError
from talking_points.dataset_schema import COLUMNS, OPTIONAL_COLUMNS
from talking_points.hub_client import bounded_hub, of_the_answer
from talking_points.hub_commits import pinned
from talking_points.output_names import DEVICES
from talking_points.owners import refuse_closed
from talking_points.parquet_sizes import UnpackedSizeError, check_footer, refuse_large
from talking_points.records import LABELS, SOURCES
from talking_points.regular_files import check_regular, homes

if TYPE_CHECKING:
    import datasets

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"
_NAMES = re.compile(
    rf"data/{_PART}\.parquet|rejected/{_PART}\.parquet|figures/{_PART}\.(?:png|svg)|README\.md|manifest\.json"
    r"|audit/report\.json"
)
_ALL_COLUMNS = COLUMNS | OPTIONAL_COLUMNS

Declared = Mapping[str, tuple[pa.DataType, str]]
"""Arrow type and meaning of every column of a kind of dataset."""

MEBIBYTE = 1 << 20
SIZES = {".json": 16 * MEBIBYTE, ".md": 4 * MEBIBYTE, ".png": 64 * MEBIBYTE, ".svg": 64 * MEBIBYTE}
"""Largest size in bytes of a file that is read as a whole, by its ending."""


class DatasetError(ConfigError):
    """A dataset's folder, repository or file cannot be used: says which file, what was expected, what to do."""


def check_name(name: object) -> str:
    """``name`` if it is one that a dataset's file may have. Raises ``ValueError`` otherwise."""
    if not isinstance(name, str) or not _NAMES.fullmatch(name) or DEVICES.fullmatch(name.rpartition("/")[2]):
        shown = name if isinstance(name, str) else type(name).__name__
        raise ValueError(
            f"expected a name like data/*.parquet, rejected/*.parquet or figures/*.png, found {shown[:80]!a}"
        )
    return name


def dataset_file(root: Path, name: str) -> Path:
    """The file ``name`` of the dataset in ``root``, which is there, inside, a regular file and not too large.

    Links are followed inside the folder only, and from a snapshot of the Hub's cache to the blobs of its repository.
    Raises ``DatasetError``.
    """
    try:
        path = root / check_name(name)
    except ValueError as error:
        raise DatasetError(f"{root}: {error}; this dataset must not be used") from None
    try:
        real, home = path.resolve(strict=True), root.resolve(strict=True)
    except (OSError, RuntimeError):
        raise DatasetError(f"{path} is missing: build the dataset again, or download it again") from None
    if not any(real.is_relative_to(folder) for folder in homes(home)):
        raise DatasetError(f"{path} is a link to {real}, outside the dataset: it is not read")
    if not real.is_file():
        raise DatasetError(f"expected a file at {path}, found something else; it is not read")
    largest = SIZES.get(path.suffix)
    if largest is not None and real.stat().st_size > largest:
        raise DatasetError(f"{path} has {real.stat().st_size:,} bytes, more than the {largest:,} that are read of it")
    return path


def dataset_names(root: Path, pattern: str) -> list[str]:
    """The files of the dataset in ``root`` that ``pattern`` ("data/test-*.parquet") finds, checked, in order."""
    found = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
    for name in found:
        dataset_file(root, name)
    return found


def make_folder(root: Path, name: str) -> Path:
    """The folder ``name`` inside the dataset in ``root``, made where it is missing, and no link to another place.

    Raises ``DatasetError``, and ``ClosedError`` where this user may not write to it.
    """
    folder = root / name
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DatasetError(f"expected a folder at {folder}, found a link or a file; remove it, then run this again")
    refuse_closed(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_groups(path: Path, columns: Collection[str]) -> Iterator[pa.Table]:
    """The rows of a published Parquet file by row group: ``columns`` with the types of the schema, values checked.

    Raises ``DatasetError`` for a file that is damaged, lacks columns, or has others of their names.
    """
    with open_parquet(path, columns) as file:
        for group in range(file.num_row_groups):
            yield read_group(file, group, columns, path)


def read_texts(path: Path, columns: Collection[str]) -> pa.Table:
    """Columns of text of any Parquet file of a build, such as the rejected rows; empty cells become "".

    Raises ``DatasetError``.
    """
    with readable(path):
        refuse_large(path, columns)
    with readable(path), pq.ParquetFile(path) as file:
        found = file.schema_arrow
        wrong = [name for name in columns if name not in found.names or _kind(found.field(name).type) != "string"]
        if wrong:
            raise DatasetError(
                f"{path}: expected columns of text {', '.join(columns)}; wrong or missing: {', '.join(wrong)}"
            )
        table = file.read(columns=list(columns)).select(list(columns))
        table = table.cast(pa.schema([(name, pa.string()) for name in columns]))
        table.validate(full=True)
        filled = [pc.fill_null(table[name], "") for name in columns]
        return pa.table(filled, names=list(columns))


@contextmanager
def open_parquet(
    path: Path, columns: Collection[str] = tuple(COLUMNS), declared: Declared = _ALL_COLUMNS
) -> Iterator[pq.ParquetFile]:
    """The published Parquet file at ``path``, whose ``columns`` are as ``declared``. Raises ``DatasetError``."""
    with readable(path):
        _measure(path, tuple(columns))
    with readable(path), pq.ParquetFile(path) as file:
        check_columns(file.schema_arrow, columns, path, declared)
        yield file


def _measure(path: Any, columns: tuple[str, ...]) -> None:
    """Refuse a file that unpacks to too much; of one at the Hub the footer alone is looked at."""
    if isinstance(path, str | Path):
        found = Path(path).stat()
        _measured(str(path), (found.st_ino, found.st_size, found.st_mtime_ns), columns)
    else:
        check_footer(path)


@lru_cache(maxsize=256)  # a page that shows row after row opens its file for each
def _measured(path: str, state: tuple[int, ...], columns: tuple[str, ...]) -> None:
    refuse_large(path, columns)


def column_names(path: Path) -> list[str]:
    """The columns of any Parquet file of a build. Raises ``DatasetError``."""
    with readable(path):
        check_footer(path)
        return list(pq.read_schema(path).names)


def read_group(
    file: pq.ParquetFile,
    group: int,
    columns: Collection[str],
    path: Path,
    declared: Declared = _ALL_COLUMNS,
    nullable: Collection[str] = tuple(OPTIONAL_COLUMNS),
) -> pa.Table:
    """One row group of a file from ``open_parquet``, as ``read_groups`` gives them.

    ``columns`` are among those that it was opened for; only ``nullable`` ones may have empty cells.
    """
    with readable(path):
        wanted = pa.schema([(name, declared[name][0]) for name in columns])
        table = file.read_row_group(group, columns=list(columns)).select(list(columns)).cast(wanted)
        table.validate(full=True)
    for name in columns:
        problem = _problem(name, table[name], nullable)
        if problem:
            raise DatasetError(f"{path}: column '{name}' of row group {group} {problem}; the dataset is damaged")
    return table


def to_rows(table: pa.Table | pa.RecordBatch, path: object) -> list[dict[str, Any]]:
    """What Python makes of columns of any types. Raises ``DatasetError``: an hour may have a zone that there is not."""
    try:
        return table.to_pylist()
    except (ValueError, LookupError, OverflowError) as error:
        raise DatasetError(f"{path} holds what cannot be read ({str(error)[:200]}): write texts and numbers") from error


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Around the reading of Parquet: what Arrow objects to becomes a ``DatasetError`` that names the file."""
    try:
        if isinstance(path, str | Path):
            check_regular(path)  # an address is none of a file
        yield
    except (pa.ArrowException, OSError, OverflowError, UnpackedSizeError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise DatasetError(
            f"{path} cannot be read as Parquet ({reason}); build the dataset again, or download it again"
        ) from error


def check_columns(found: pa.Schema, columns: Collection[str], path: object, declared: Declared = _ALL_COLUMNS) -> None:
    """Compare a file's columns with those of the schema. Raises ``DatasetError`` that names the first that differs.

    Widths of numbers and of lists may differ, and are converted; kinds may not: text where an image's bytes are
    expected is a path or an address that a reader would open.
    """
    missing = [name for name in columns if name not in found.names]
    if missing:
        command = "build" if declared is _ALL_COLUMNS else "build-instructions"
        raise DatasetError(f"{path} lacks the columns {sorted(missing)}: build it with talking-points {command}")
    for name in columns:
        expected, kind = declared[name][0], found.field(name).type
        if _kind(kind) != _kind(expected):
            raise DatasetError(
                f"{path}: expected column '{name}' as {expected}, found {str(kind)[:80]}; it is not read"
            )
    labels = _labels(found)
    if "source" in columns and pa.types.is_integer(declared["source"][0]) and labels != list(LABELS[: len(labels)]):
        raise DatasetError(
            f"{path}: expected the sources {', '.join(LABELS)}, found {str(labels)[:80]}; it is not read"
        )


def read_dataset(
    path: str | Path, split: str, columns: Collection[str], *, revision: str | None = None, streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """Columns of a split of a published dataset, a folder or a repository "org/name" of the Hub, images not decoded.

    Only ``data/<split>-*.parquet`` is read, with the types of our schema: what a card or a file's own metadata says of
    features and files counts for nothing. Raises ``DatasetError``.
    """
    import datasets

    features = _features(columns)
    files = _hub_stream(str(path), split, columns, revision) if streaming and not Path(path).is_dir() else None
    if files is None:
        files = [glob.escape(str(file)) for file in _local(path, split, columns, revision)]
    try:
        return datasets.load_dataset(
            "parquet", data_files={split: files}, split=split, streaming=streaming,
            columns=list(features), features=features,
        )  # fmt: skip
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DatasetError(f"cannot read split '{split}' of the dataset {path}: {error}") from error


def _local(path: str | Path, split: str, columns: Collection[str], revision: str | None) -> list[Path]:
    """The files of a split, checked; those of a repository are downloaded into the Hub's cache."""
    root = Path(path) if Path(path).is_dir() else _download(str(path), split, revision)
    if not re.fullmatch(r"\w+", split):
        raise DatasetError(f"expected a split such as train or test, found {split[:80]!r}")
    files = [(root / name).absolute() for name in dataset_names(root, f"data/{split}-*.parquet")]
    if not files:
        held = sorted({Path(name).name.partition("-")[0] for name in dataset_names(root, "data/*-*.parquet")})
        raise DatasetError(
            f"cannot read split '{split}' of the dataset {path}: no file data/{split}-*.parquet in it; its splits: "
            f"{', '.join(held) or 'none'} (a build of few images may have no other)"
        )
    for file in files:
        with open_parquet(file, columns):
            pass
    return files


def _download(repo: str, split: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with _reaching(repo):
        return Path(
            snapshot_download(
                repo,
                repo_type="dataset",
                revision=pinned(repo, revision, "dataset"),
                allow_patterns=f"data/{split}-*.parquet",
            )
        )


def _hub_stream(repo: str, split: str, columns: Collection[str], revision: str | None) -> list[str]:
    """Addresses of a split's files at one commit, checked by their footers."""
    from huggingface_hub import HfApi, HfFileSystem

    with _reaching(repo):
        api = HfApi()
        commit = pinned(repo, revision, "dataset")
        if not re.fullmatch("[0-9a-f]{40}", commit or ""):
            commit = api.repo_info(repo, repo_type="dataset", revision=revision).sha
        listed = api.list_repo_files(repo, repo_type="dataset", revision=commit)
        names = sorted(name for name in listed if re.fullmatch(rf"data/{re.escape(split)}-[\w.-]*\.parquet", name))
        addresses = [f"hf://datasets/{repo}@{commit}/{check_name(name)}" for name in names]
        for address in addresses:
            with HfFileSystem().open(address) as stream, open_parquet(stream, columns):
                pass
    if not addresses:
        raise DatasetError(f"cannot read split '{split}' of the dataset {repo}: no file data/{split}-*.parquet in it")
    return addresses


@contextmanager
def _reaching(repo: str) -> Iterator[None]:
    bounded_hub()
    try:
        if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)?", repo):
            raise DatasetError(f"cannot read the dataset {repo}: expected a folder, or a repository org/name")
        yield
    except DatasetError:
        raise
    except Exception as error:
        if not of_the_answer(error):
            raise
        # The cause's frames hold request headers, and so the token.
        reason = str(error).strip().partition("\n")[0][:300] if isinstance(error, OSError | ValueError) else repr(error)
        raise DatasetError(f"cannot read the dataset {repo}: no such folder, and of the Hub: {reason}") from None


def _features(columns: Collection[str]) -> datasets.Features:
    from datasets import Features, Image

    from talking_points.dataset_schema import features

    declared = features(LABELS)
    chosen = Features({name: declared[name] for name in COLUMNS if name in columns})
    if "image" in chosen:
        chosen["image"] = Image(decode=False)
    return chosen


def _kind(kind: pa.DataType) -> object:
    """A type without its widths."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "binary"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_struct(kind):
        return sorted((field.name, str(_kind(field.type))) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return ("list", _kind(kind.value_type))
    return str(kind)


def _labels(found: pa.Schema) -> list[Any]:
    """The names that the file itself gives to the numbers of ``source``; none where it says nothing."""
    try:
        features = json.loads((found.metadata or {})[b"huggingface"])["info"]["features"]
        names = features["source"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return names if isinstance(names, list) else [names]


def _problem(name: str, column: pa.ChunkedArray, nullable: Collection[str]) -> str | None:
    """What is wrong with a column's values, if anything."""
    if name == "image":
        images = column.combine_chunks().drop_null()
        lost = pc.struct_field(images, "bytes").null_count if len(images) else 0
        return f"has {lost} images that are names of files without their bytes" if lost else None
    if name in nullable:
        column = column.drop_null()
    if column.null_count:
        return f"has {column.null_count} empty cells"
    values = column.combine_chunks()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        values = values.flatten()
        if values.null_count:
            return "has lists with empty places"
    if pa.types.is_floating(values.type) and not pc.all(pc.is_finite(values)).as_py() and len(values):
        return "has numbers that are not finite"
    labels = len(values) if name == "source" and pa.types.is_integer(values.type) else 0
    if labels and not (pc.min(values).as_py() >= 0 and pc.max(values).as_py() < len(LABELS)):
        return f"has numbers that name none of {len(LABELS)} sources"
    if name in ("image_width", "image_height", "width", "height") and len(values) and pc.min(values).as_py() < 1:
        return "has sizes below one pixel"
    return None


def labels_of(file: pq.ParquetFile) -> tuple[str, ...]:
    """The names that a checked file declares for its sources, for a copy of it."""
    return LABELS[: max(len(_labels(file.schema_arrow)), len(SOURCES))]


def image_bytes(cells: pa.ChunkedArray) -> Iterator[bytes | None]:
    """The bytes of each cell of the column ``image``; a path without bytes counts as no image, and is not opened."""
    for cell in cells:
        value: Mapping[str, Any] | None = cell.as_py()
        yield value["bytes"] if value else None
