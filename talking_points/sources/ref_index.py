"""References joined with the annotations and images they refer to, on disk as ``CocoIndex`` keeps those."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from talking_points.sources.coco_index import CocoImage, CocoIndex
from talking_points.sources.protocol import Source
from talking_points.sources.refs import MirroredRef, Ref

_TABLES = """
CREATE TABLE refs (split TEXT, annotation TEXT, number INTEGER PRIMARY KEY, expressions TEXT);
CREATE TABLE evaluated (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_JOINED = """
FROM refs JOIN annotations ON annotations.id = refs.annotation JOIN images ON images.key = annotations.key
WHERE refs.split = ?
"""


class RefIndex(CocoIndex):
    """COCO images and annotations with the references to them. Use as a context manager."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, joint=True)
        self._database.executescript(_TABLES)

    def add_refs(self, refs: Iterable[Ref]) -> None:
        rows = ((ref.split, str(ref.ann_id), json.dumps(ref.expressions)) for ref in refs)
        self._database.executemany("INSERT INTO refs VALUES (?, ?, NULL, ?)", rows)

    def add_mirrored(self, rows: Iterable[MirroredRef], file: str) -> None:
        """Add the rows of a Parquet mirror, each with its annotation and image. Those seen before are kept."""
        for row in rows:
            image = self._image_row(row.image, "", "", file, lambda name: PurePosixPath(name).stem)
            annotation = self._annotation_row(row.annotation, "")
            if image is None or annotation is None:
                continue
            self._insert("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?)", [image])
            seen = "WHERE NOT EXISTS (SELECT 1 FROM annotations WHERE id = ?2)"
            self._insert(f"INSERT INTO annotations SELECT ?1, ?2, ?3, ?4 {seen}", [annotation])
            self.add_refs([row.ref])

    def add_evaluated(self, image_ids: Iterable[int]) -> None:
        """Remember COCO ids of images that another set is evaluated on."""
        self._database.executemany("INSERT OR IGNORE INTO evaluated VALUES (?)", ((str(id),) for id in image_ids))

    def add_own_evaluated(self) -> None:
        """Remember the images of all splits but train."""
        for (split,) in self._database.execute("SELECT DISTINCT split FROM refs WHERE split != 'train'").fetchall():
            self._database.execute(f"INSERT OR IGNORE INTO evaluated SELECT images.key {_JOINED}", (split,))

    def count_lost(self, splits: Sequence[str]) -> None:
        """Count the references of ``splits`` to annotations, or to annotations of images, that are not listed."""
        for split in splits:
            wanted = "FROM refs LEFT JOIN annotations ON annotations.id = refs.annotation WHERE refs.split = ?"
            lost = {
                "ref_without_annotation": "annotations.id IS NULL",
                "ref_without_image": "annotations.key NOT IN (SELECT key FROM images)",
            }
            for reason, condition in lost.items():
                query = f"SELECT count(*), min(refs.annotation) {wanted} AND {condition}"
                count, example = self._database.execute(query, (split,)).fetchone()
                if count:
                    self.source.skip(reason, f"{split}: annotation {example}", count)

    def count_evaluated(self, split: str) -> int:
        """Images of a split that are among those evaluated on."""
        query = f"SELECT count(DISTINCT images.key) {_JOINED} AND images.key IN evaluated"
        return int(self._database.execute(query, (split,)).fetchone()[0])

    def list_referred(self, split: str, with_evaluated: bool = True) -> Iterator[CocoImage]:
        """The images of a split in the order of their ids, with the annotations that its references refer to.

        Each annotation has its ``expressions``: those of all references to it, in the order of the file.
        """
        leave_out = "" if with_evaluated else "AND images.key NOT IN evaluated"
        columns = "images.image_id, images.file, images.payload, annotations.id, annotations.payload, expressions"
        order = "ORDER BY images.image_id, annotations.number, annotations.id, refs.number"
        rows = self._database.execute(f"SELECT {columns} {_JOINED} {leave_out} {order}", (split,))
        for (image_id, file, image), of_image in groupby(rows, key=lambda row: row[:3]):
            name, width, height = json.loads(image)
            annotations: list[dict[str, Any]] = []
            for (_, payload), of_annotation in groupby(of_image, key=lambda row: row[3:5]):
                expressions = [text for row in of_annotation for text in json.loads(row[5])]
                annotations.append(json.loads(payload) | {"expressions": expressions})
            yield CocoImage(f"{split}{image_id}", split, file, name, width, height, annotations)
