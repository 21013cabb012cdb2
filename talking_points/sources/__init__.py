"""Readers of the part- and keypoint-annotated datasets: ``open_source`` and what it yields."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from talking_points.source_names import GROUP, find_added_sources
from talking_points.sources.ade20k_part234 import Ade20kPart234
from talking_points.sources.ap10k import Ap10k
from talking_points.sources.coco_keypoints import CocoKeypoints
from talking_points.sources.mp100 import Mp100
from talking_points.sources.own_images import Images
from talking_points.sources.own_objects import CocoParts
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
    "coco_parts": CocoParts,
    "images": Images,
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
    reader = READERS[name] if name in READERS else _find_added_reader(name)
    known = [option for option in inspect.signature(reader).parameters if option not in ("root", "split")]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise SourceError(
            f"expected options of {name} of {', '.join(known) or 'none at all'}; found {', '.join(unknown)}"
        )
    return reader(root, split, **options)


def _find_added_reader(name: str) -> type[Source]:
    """The reader that another package gives under the entry point ``name``."""
    added = find_added_sources()
    if name not in added:
        raise SourceError(f"expected a source name of {', '.join((*READERS, *added))}; found {name!r}")
    try:
        reader = added[name].load()
    except Exception as error:  # whatever importing another package raises
        raise SourceError(f"cannot load the source {name} ({added[name].value}): {error!r}") from error
    if not (isinstance(reader, type) and issubclass(reader, Source) and getattr(reader, "name", None) == name):
        raise SourceError(
            f"expected a subclass of talking_points.sources.Source whose name is {name!r} behind the entry point "
            f"{added[name].value} of the group {GROUP}, found {reader!r}"
        )
    return reader


__all__ = ["READERS", "SkippedImage", "Source", "SourceEntry", "SourceError", "open_source"]
