"""Copies of a dataset's Parquet files with other values in the column ``image``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from talking_points.dataset_files import dataset_file, labels_of, open_parquet, read_group
from talking_points.dataset_schema import PARQUET_OPTIONS, optional_in, triplet_schema
from talking_points.publishing.image_cells import ImageCell
from talking_points.whole_files import file_sha256

MakeCells = Callable[[pa.Table, Path], Sequence[ImageCell | None] | None]
"""The cells of some rows of a file; None where it is of no use to go on."""


def rewrite_images(
    folder: Path, target: Path, files: Sequence[Mapping[str, Any]], make_cells: MakeCells
) -> Iterator[dict[str, Any]]:
    """Copy the ``files`` that a manifest lists from ``folder`` to ``target``, one row group in memory at a time.

    Gives the manifest's entry of each new file; ends early where there are no cells.
    """
    for file in files:
        source, path = dataset_file(folder, file["path"]), target / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_parquet(source) as built,
            pq.ParquetWriter(
                path,
                schema := triplet_schema(labels_of(built), optional_in(built.schema_arrow.names)),
                **PARQUET_OPTIONS,
            ) as writer,
        ):
            for group in range(built.num_row_groups):
                rows = read_group(built, group, schema.names, source)
                cells = make_cells(rows, source)
                if cells is None:
                    return
                column = pa.array(cells, schema.field("image").type)
                rows = rows.set_column(schema.get_field_index("image"), schema.field("image"), column)
                writer.write_table(rows.cast(schema))
        yield {**file, "sha256": file_sha256(path), "bytes": path.stat().st_size}
