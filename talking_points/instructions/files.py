"""Reading the files of an instruction dataset, which somebody else may have written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from talking_points.dataset_files import DatasetError, dataset_file, dataset_names, open_parquet, read_group
from talking_points.instructions.elements import KINDS
from talking_points.instructions.schema import COLUMNS
from talking_points.sources.coco_parts import BadAnnotationError, check_rle

SIDES = ("train", "test")
NULLABLE = ("epsilon",)


def read_tables(root: Path, split: str | None, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a split by row group: ``columns`` with the types of the schema. Raises ``DatasetError``."""
    if split is not None and not re.fullmatch(r"\w+", split):
        raise DatasetError(f"expected a split such as train or test, found {split[:80]!r}")
    if not (root / "data").is_dir():
        raise DatasetError(
            f"expected an instruction dataset in {root}, found no folder data in it; "
            "build one with talking-points build-instructions"
        )
    side = split if split in SIDES else None
    found = 0
    for name in dataset_names(root, f"data/{side or '*'}-*.parquet"):
        path = dataset_file(root, name)
        needed = tuple(dict.fromkeys([*columns, "split", "kind", "width", "height"]))
        with open_parquet(path, needed, COLUMNS) as file:
            for group in range(file.num_row_groups):
                table = read_group(file, group, needed, path, COLUMNS, NULLABLE)
                if split is not None and side is None:
                    table = table.filter(pc.equal(table["split"], split))
                found += table.num_rows
                check_table(table, path)
                yield table.select(list(columns))
    if not found:
        wanted = f"of split '{split}' " if split else ""
        raise DatasetError(f"no row {wanted}in {root}: expected them in data/*.parquet; build the dataset again")


def check_table(table: pa.Table, path: Path) -> None:
    """Refuse what the types do not. Masks that do not fill their image would be read from memory that nobody wrote.

    Raises ``DatasetError``.
    """
    unknown = set(table["kind"].to_pylist()) - set(KINDS)
    if unknown:
        raise DatasetError(f"{path}: expected kinds of {', '.join(KINDS)}, found {min(unknown)[:80]!a}; it is not read")
    if "mask" not in table.column_names:
        return
    sizes = zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)
    for mask, (width, height) in zip(table["mask"].to_pylist(), sizes, strict=True):
        try:
            check_rle(mask, width, height)
        except (BadAnnotationError, ValueError, TypeError, OverflowError) as error:
            raise DatasetError(f"{path}: a mask is damaged ({error}); build the dataset again") from error
