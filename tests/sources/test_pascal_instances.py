from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.io import savemat

from talking_points.records import Mask
from talking_points.sources.pascal_instances import (
    UnusableInstancesError,
    connected_components,
    find_instances,
    instances_from_mat,
    instances_from_voc,
)
from tests.sources.trees import blank


def write_mat(path: Path, objects: list[tuple[str, int, Mask]], parts: int = 0) -> Path:
    """The nested struct layout of PASCAL-Part: 1x1 anno, 1xN objects, 1xM parts or empty."""
    part_type = [("part_name", object), ("mask", object)]
    object_type = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    array = np.empty((1, len(objects)), dtype=object_type)
    for number, (name, index, mask) in enumerate(objects):
        pieces: Any = np.empty((1, parts), dtype=part_type) if parts else np.empty((0, 0))
        for part in range(parts):
            pieces[0, part] = (f"wheel_{part + 1}", mask.astype(np.uint8))
        array[0, number] = (name, index, mask.astype(np.uint8), pieces)
    anno = np.empty((1, 1), dtype=[("imname", object), ("objects", object)])
    anno[0, 0] = (path.stem, array)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": anno}, do_compression=True)
    return path


def half(left: bool) -> Mask:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[5:25, 5 : 20 if left else 35] = True
    if not left:
        mask[:, :20] = False
    return mask


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_original_part_files_give_instances(tmp_path: Path, count: int, parts: int) -> None:
    objects = [("dog", 12, half(True)), ("dog", 12, half(False)), ("cat", 8, ~half(True))][:count]
    found = instances_from_mat(write_mat(tmp_path / "x.mat", objects, parts), (40, 60))
    assert [class_id for class_id, _ in found] == [11, 11, 7][:count]
    for (_, mask), (_, _, expected) in zip(found, objects, strict=True):
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, expected)


def test_unusable_part_files_are_named(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "x.mat", [("dog", 12, half(True))])
    with pytest.raises(UnusableInstancesError, match="instance_size_mismatch"):
        instances_from_mat(path, (60, 40))
    whole = path.read_bytes()
    for content in (b"", b"nonsense" * 40, whole[:150]):
        path.write_bytes(content)
        with pytest.raises(UnusableInstancesError, match="unreadable_instances"):
            instances_from_mat(path, (40, 60))
    savemat(path, {"other": 1})
    with pytest.raises(UnusableInstancesError, match="unreadable_instances"):
        instances_from_mat(path, (40, 60))


def test_voc_instances_take_the_class_of_most_of_their_pixels() -> None:
    classes, numbers = blank(255), blank(0)
    classes[half(True)], classes[half(False)] = 11, 7
    numbers[half(True)], numbers[half(False)] = 1, 2
    numbers[4, :], numbers[30:35, 50:] = 255, 3  # the border, and an instance without a class
    classes[6:8, 6:8] = 7
    found = instances_from_voc(numbers, classes)
    assert [class_id for class_id, _ in found] == [11, 7]
    with pytest.raises(UnusableInstancesError, match="instance_size_mismatch"):
        instances_from_voc(numbers.T, classes)


def test_known_instances_are_exact_and_the_rest_falls_back() -> None:
    classes = blank(255)
    classes[half(True) | half(False)] = 11  # two dogs that touch
    classes[30:40, 0:10], classes[30:40, 50:60] = 7, 7  # two cats apart
    absent = np.zeros((40, 60), dtype=np.bool_)
    found, empty = find_instances(
        classes, [7, 11], [(11, half(True)), (11, half(False)), (14, half(True)), (3, absent)]
    )
    assert [(item.class_id, item.exact, int(item.mask.sum())) for item in found] == [
        (11, True, 300),
        (11, True, 300),
        (7, False, 100),
        (7, False, 100),
    ]
    assert empty == 2
    assert (found[0].rows, found[0].columns) == (slice(5, 25), slice(5, 20))


def test_overlapping_instances_share_no_pixel() -> None:
    classes = blank(11)
    found, _ = find_instances(classes, [11], [(11, half(True)), (11, half(True) | half(False))])
    assert [int(item.mask.sum()) for item in found] == [300, 300]


def test_fragments_go_to_the_nearest_component() -> None:
    mask = np.zeros((60, 100), dtype=np.bool_)
    mask[10:30, 5:25] = True  # 400 pixels
    mask[10:30, 60:95] = True  # 700 pixels
    mask[15:18, 30:33] = True  # 9 pixels, 5 from the left one
    mask[40:47, 60:67] = True  # 49 pixels below the right one
    left, right = connected_components(mask)
    assert (int(left.sum()), int(right.sum())) == (409, 749)
    assert left[16, 31]
    assert right[42, 62]


def test_a_class_of_specks_only_keeps_all_in_one() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[::4, ::4] = True
    (only,) = connected_components(mask)
    assert np.array_equal(only, mask)


def test_diagonal_neighbours_are_connected() -> None:
    (only,) = connected_components(np.kron(np.eye(5, dtype=np.bool_), np.ones((20, 20), dtype=np.bool_)))
    assert only.sum() == 5 * 400


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, (10, 12)).filter(np.any), st.integers(1, 12))
def test_components_partition_their_class(coarse: Mask, scale: int) -> None:
    mask = np.kron(coarse, np.ones((scale, scale), dtype=np.bool_))
    components = connected_components(mask)
    assert components
    assert np.array_equal(np.sum(components, axis=0), mask.astype(int))
