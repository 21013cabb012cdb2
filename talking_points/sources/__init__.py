"""Readers of the part- and keypoint-annotated datasets: ``open_source`` and what it yields."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from talking_points.sources.ade20k_part234 import Ade20kPart234
from talking_points.sources.ap10k import Ap10k
from talking_points.sources.coco_keypoints import CocoKeypoints
from talking_points.sources.mp100 import Mp100
from talking_points.sources.partimagenet import PartImageNet
from talking_points.sources.pascal_part116 import PascalPart116
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError
from talking_points.sources.refcoco import RefCoco, RefCocog, RefCocoPlus

READERS: dict[str, type[Source]] = {
    "pascal_part116": PascalPart116,
    "ade20k_part234": Ade20kPart234,
    "partimagenet": PartImageNet,
    "ap10k": Ap10k,
    "mp100": Mp100,
    "coco_keypoints": CocoKeypoints,
    "refcoco": RefCoco,
    "refcoco_plus": RefCocoPlus,
    "refcocog": RefCocog,
}


def open_source(name: str, root: str | Path, split: str | None = None, **options: Any) -> Source:
    """Open a dataset for reading; iterate the result for its records.

    ``root`` is the unpacked dataset's folder, or one up to two levels above it. ``split`` is the source's own
    name or the generic one ("train", "val", "test"); None reads all. ``options`` are the further
    keyword arguments of the source's class. Checks the layout only: labels are read while iterating.
    Raises ``SourceError`` for an unknown name, split or option, or a root without the dataset.
    """
    if name not in READERS:
        raise SourceError(f"expected a source name of {', '.join(READERS)}; found {name!r}")
    reader = READERS[name]
    known = [option for option in inspect.signature(reader).parameters if option not in ("root", "split")]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise SourceError(
            f"expected options of {name} of {', '.join(known) or 'none at all'}; found {', '.join(unknown)}"
        )
    return reader(root, split, **options)


__all__ = ["READERS", "SkippedImage", "Source", "SourceEntry", "SourceError", "open_source"]
