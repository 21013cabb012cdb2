"""Copies of a dataset's Parquet files with other values in the column ``image``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from talking_points.dataset_files import dataset_file, open_parquet
from talking_points.publishing.forms import DatasetForm
from talking_points.publishing.image_cells import ImageCell
from talking_points.whole_files import file_sha256

MakeCells = Callable[[pa.Table, Path], Sequence[ImageCell | None] | None]
"""The cells of some rows of a file; None where it is of no use to go on."""


def rewrite_images(
    folder: Path, target: Path, files: Sequence[Mapping[str, Any]], make_cells: MakeCells, form: DatasetForm
) -> Iterator[dict[str, Any]]:
    """Copy the ``files`` that a manifest lists from ``folder`` to ``target``, one row group in memory at a time.

    The dataset is of this ``form``. Gives the manifest's entry of each new file; ends early where there are no cells.
    """
    for file in files:
        source, path = dataset_file(folder, file["path"]), target / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_parquet(source, form.columns_in(source), form.declared) as built,
            pq.ParquetWriter(path, schema := form.schema_of(built), **form.options) as writer,
        ):
            for group in range(built.num_row_groups):
                rows = form.read_group(built, group, schema.names, source)
                cells = make_cells(rows, source)
                if cells is None:
                    return
                column = pa.array(cells, schema.field("image").type)
                rows = rows.set_column(schema.get_field_index("image"), schema.field("image"), column)
                writer.write_table(rows.cast(schema))
        yield {**file, "sha256": file_sha256(path), "bytes": path.stat().st_size}
