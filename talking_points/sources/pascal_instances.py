"""Which pixels of Pascal-Part-116's class maps are which animal or thing: the release itself does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.records import Mask
from talking_points.regular_files import IrregularFileError
from talking_points.sources.label_maps import bounds, shift_span
from talking_points.sources.mat_sizes import check_mat

MIN_COMPONENT_PIXELS = 64
MIN_COMPONENT_SHARE = 0.01
"""Components under either limit are fragments: of their class's pixels, and in pixels."""

ClassMask = tuple[int, Mask]
"""Class id (0-based) and the pixels of one instance."""


class UnusableInstancesError(Exception):
    """An optional instance file that cannot be used for an image. ``reason`` is a key of ``SKIP_REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def instances_from_mat(path: Path, shape: tuple[int, int]) -> list[ClassMask]:
    """Instances of an original PASCAL-Part file (``Annotations_Part/<stem>.mat``, Chen et al. 2014).

    Layout: struct ``anno`` with ``objects`` (1 x N structs: ``class_ind`` = 1-based VOC index, ``mask`` 0/1 of the
    image's size). Raises ``UnusableInstancesError``.
    """
    from scipy.io import loadmat  # a third of a second, which a build that lists nothing does without

    try:
        check_mat(path)
        anno = loadmat(path, variable_names=["anno"], simplify_cells=True)["anno"]
        objects = anno["objects"]
        objects = [objects] if isinstance(objects, dict) else list(objects)
        found = [(int(item["class_ind"]) - 1, np.asarray(item["mask"]).astype(np.bool_)) for item in objects]
    except Exception as error:  # SciPy raises nearly anything on a damaged file, OSError without a number too
        of_the_file = isinstance(error, FileNotFoundError | IrregularFileError)
        if isinstance(error, OSError) and error.errno is not None and not of_the_file:
            raise  # the disk fails, not the file
        raise UnusableInstancesError("unreadable_instances", f"{path.name}: {error!r}") from error
    for _, mask in found:
        if mask.shape != shape:
            raise UnusableInstancesError("instance_size_mismatch", f"{path.name}: {mask.shape} for an image of {shape}")
    return found


def instances_from_voc(numbers: NDArray[np.integer], classes: NDArray[np.integer]) -> list[ClassMask]:
    """Instances of a VOC ``SegmentationObject`` map: 0 background, 1..N instances, 255 border.

    The map has no classes: an instance takes the class most of its pixels have in ``classes`` (255 = none).
    Raises ``UnusableInstancesError`` when the sizes differ.
    """
    if numbers.shape != classes.shape:
        raise UnusableInstancesError("instance_size_mismatch", f"{numbers.shape} for an image of {classes.shape}")
    found = []
    for number in np.unique(numbers):
        if number in (0, 255):
            continue
        mask: Mask = numbers == number
        votes = np.bincount(classes[mask], minlength=256)[:255]
        if votes.any():
            found.append((int(votes.argmax()), mask))
    return found


def connected_components(mask: Mask) -> list[Mask]:
    """The 8-connected components of a class, fragments joined to the nearest real component.

    Components under ``MIN_COMPONENT_PIXELS`` or ``MIN_COMPONENT_SHARE`` of the class (the border of an occluder,
    labelling specks) are no instances. Their pixels stay in the class all the same: each goes to the
    nearest kept component, so that the components always add up to the class. The largest is always kept.
    """
    count, numbers = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    if count <= 2:  # the background and one component
        return [mask]
    areas = np.bincount(numbers.ravel())  # quicker than OpenCV's statistics, which hold more
    areas[0] = 0
    kept = np.flatnonzero((areas >= MIN_COMPONENT_PIXELS) & (areas >= MIN_COMPONENT_SHARE * areas.sum()))
    if kept.size <= 1:
        return [mask]
    if kept.size < count - 1:
        numbers = _join_fragments(np.asarray(numbers, dtype=np.int32), kept)
    return [numbers == number for number in kept]


def _join_fragments(numbers: NDArray[np.integer], kept: NDArray[np.integer]) -> NDArray[np.integer]:
    """Component numbers with every component that is not in ``kept`` renumbered to the nearest one that is."""
    is_kept = np.isin(np.arange(numbers.max() + 1), kept)
    on_kept = is_kept[numbers]
    # For every pixel its distance to the kept components and the zone of the nearest.
    distance, zones = cv2.distanceTransformWithLabels(
        (~on_kept).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_CCOMP
    )
    owner = np.zeros(int(zones.max()) + 1, dtype=np.int32)
    owner[zones[on_kept]] = numbers[on_kept]
    target = np.arange(is_kept.size, dtype=np.int32)
    for number in np.flatnonzero(~is_kept)[1:]:  # 0 is the background
        rows, columns = np.nonzero(numbers == number)
        nearest = distance[rows, columns].argmin()
        target[number] = owner[zones[rows[nearest], columns[nearest]]]
    return target[numbers]


@dataclass(frozen=True)
class Instance:
    """One instance: its class, whether it is known to be one, and its mask cropped to ``rows``, ``columns``."""

    class_id: int
    exact: bool
    rows: slice
    columns: slice
    mask: Mask


def find_instances(
    classes: NDArray[np.integer], present: Sequence[int], known: Sequence[ClassMask]
) -> tuple[list[Instance], int]:
    """The instances of a class map, and how many of the ``known`` ones have no pixel in it.

    ``classes``: the class map (255 = none); ``present``: the class ids in it; ``known``: instances from a file that
    tells them apart. A class without known instances falls back to connected components, which are exact
    only if there is one. Known instances are intersected with their class; a pixel of two belongs to the first.
    """
    found = []
    empty = 0
    free = np.ones(classes.shape, dtype=np.bool_)
    for class_id, mask in known:
        own = mask & free & (classes == class_id)
        free &= ~own
        rows, columns = bounds(own)
        if rows.start == rows.stop:
            empty += 1
        else:
            found.append(Instance(class_id, True, rows, columns, np.ascontiguousarray(own[rows, columns])))
    covered = {instance.class_id for instance in found}
    for class_id in present:
        if class_id in covered:
            continue
        whole = classes == class_id
        rows, columns = bounds(whole)
        components = connected_components(np.ascontiguousarray(whole[rows, columns]))
        for component in components:
            y, x = bounds(component)
            place = shift_span(y, rows.start), shift_span(x, columns.start)
            found.append(Instance(class_id, len(components) == 1, *place, np.ascontiguousarray(component[y, x])))
    return found, empty
