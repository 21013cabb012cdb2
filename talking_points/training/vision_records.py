"""The images that a small vision path is pretrained on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from talking_points.image_files import FILE_BYTES
from talking_points.records import ImageRecord
from talking_points.sources import open_source
from talking_points.training.config import VisionConfig
from talking_points.whole_files import file_sha256


def vision_records(config: VisionConfig, held_out: Collection[str]) -> Iterator[ImageRecord]:
    """What the vision path may learn from: every source but the images of the held-out digests.

    The dataset is not split as its sources are, so that their own training images are among its test images.
    """
    for name, root in sorted(config.sources.items()):
        allowed = (
            record for record in open_source(name, root) if file_sha256(record.image_path, FILE_BYTES) not in held_out
        )
        yield from islice(allowed, config.images)
