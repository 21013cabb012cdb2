from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from talking_points.build_config import KeypointConfig
from talking_points.candidates import keypoints
from talking_points.candidates.keypoints import select_keypoints
from talking_points.records import MaskCrop
from talking_points.sources.label_maps import bounds
from tests.candidates.scenes import HEIGHT, WIDTH, blob, canvas, dog, part, record, rectangle, texture
from tests.sources.trees import coco, part_categories, write_json

PER_PART = KeypointConfig(per="part")


@pytest.fixture
def opencv_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def test_the_strongest_keypoint_inside_any_part_wins_and_the_background_never_does():
    pixels = canvas()
    blob(pixels, 40, 40, contrast=120)  # background, the strongest
    blob(pixels, 120, 80, contrast=60)
    blob(pixels, 200, 120, contrast=90)
    scene = record(pixels, dog(part("head", rectangle(105, 65, 30, 30)), part("tail", rectangle(185, 105, 30, 30))))
    points, reasons = select_keypoints(scene, KeypointConfig())
    assert [(point.object_index, point.part_index) for point in points] == [(0, 1)]
    assert points[0].x == pytest.approx(200, abs=0.5)
    assert points[0].y == pytest.approx(120, abs=0.5)
    assert not points[0].low_contrast
    assert not reasons


def test_the_choice_is_the_best_of_all_keypoints_that_opencv_finds():
    scene = record(texture(), dog(part("head", rectangle(60, 40, 50, 50)), part("torso", rectangle(120, 50, 90, 80))))
    (point,), _ = select_keypoints(scene, KeypointConfig())
    grey = cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2GRAY)
    found = [
        keypoint
        for keypoint in cv2.SIFT.create().detect(grey, None)
        if any(piece.mask[round(keypoint.pt[1]), round(keypoint.pt[0])] for piece in scene.objects[0].parts)  # type: ignore[index]
    ]
    best = max(found, key=lambda keypoint: keypoint.response)
    assert (point.x, point.y, point.response, point.size) == (*best.pt, best.response, best.size)


def test_one_point_per_part_keeps_instances_and_repeated_annotations_apart():
    scene = record(
        texture(),
        dog(part("foot", rectangle(20, 20, 40, 40)), part("foot", rectangle(70, 20, 40, 40))),
        dog(part("foot", rectangle(130, 20, 40, 40))),
    )
    points, _ = select_keypoints(scene, PER_PART)
    assert [(point.object_index, point.part_index) for point in points] == [(0, 0), (0, 1), (1, 0)]
    for point in points:
        mask = scene.objects[point.object_index].parts[point.part_index].mask
        assert mask is not None
        assert mask[round(point.y), round(point.x)]


def test_a_keypoint_in_overlapping_parts_belongs_to_the_smallest():
    pixels = canvas()
    blob(pixels, 120, 80)
    head, eye = part("head", rectangle(80, 40, 80, 80)), part("eye", rectangle(110, 70, 20, 20))
    for parts in ((head, eye), (eye, head)):
        points, _ = select_keypoints(record(pixels, dog(*parts)), KeypointConfig())
        assert [parts[point.part_index].name for point in points] == ["eye"]


def test_equal_responses_are_ordered_by_y_then_x():
    pixels = canvas()
    tile = pixels[:80, :80].copy()
    blob(tile, 40, 40)
    for x, y in ((160, 80), (80, 80), (160, 0)):
        pixels[y : y + 80, x : x + 80] = tile
    scene = record(pixels, dog(part("torso", rectangle(70, 0, 170, 160))))
    (point,), _ = select_keypoints(scene, KeypointConfig())
    assert (round(point.x), round(point.y)) == (200, 40)


def test_a_smooth_part_is_reached_by_the_second_pass_and_says_so():
    pixels = canvas()
    blob(pixels, 60, 80, contrast=110)
    blob(pixels, 180, 80, contrast=4)
    textured, smooth = part("head", rectangle(40, 60, 40, 40)), part("torso", rectangle(160, 60, 40, 40))
    points, reasons = select_keypoints(record(pixels, dog(textured, smooth)), PER_PART)
    assert [(point.part_index, point.low_contrast) for point in points] == [(0, False), (1, True)]
    assert points[1].x == pytest.approx(180, abs=1)
    assert points[1].y == pytest.approx(80, abs=1)
    assert not reasons
    (point,), _ = select_keypoints(record(pixels, dog(smooth)), KeypointConfig())
    assert point.low_contrast


@pytest.mark.parametrize("config", [KeypointConfig(), PER_PART])
@pytest.mark.parametrize("smooth", [False, True])
def test_masks_cut_down_to_their_boxes_give_the_same_points(smooth: bool, config: KeypointConfig):
    pixels = canvas() if smooth else texture()
    blob(pixels, 90, 70, contrast=5)
    # Overlapping parts of several areas, one of them not convex.
    hollow = rectangle(20, 20, 150, 120) & ~rectangle(40, 0, 9, 99)
    masks = [rectangle(60, 40, 90, 70), rectangle(80, 60, 30, 30), hollow]
    whole = [part("torso", mask) for mask in masks]
    cut = [
        replace(piece, load_mask=partial(MaskCrop, mask.shape, rows, columns, mask[rows, columns]))
        for piece, mask in zip(whole, masks, strict=True)
        for rows, columns in [bounds(mask)]
    ]
    expected = select_keypoints(record(pixels, dog(*whole)), config)
    assert expected[0]
    assert select_keypoints(record(pixels, dog(*cut)), config) == expected


def test_several_smooth_parts_that_share_a_crop_each_get_their_own_point():
    pixels = canvas()
    centers = [(x, y) for y in (40, 80, 120) for x in (60, 120, 180)]
    for x, y in centers:
        blob(pixels, x, y, contrast=5, radius=4)
    scene = record(pixels, dog(*(part("spot", rectangle(x - 15, y - 15, 30, 30)) for x, y in centers)))
    points, _ = select_keypoints(scene, PER_PART)
    assert [(round(point.x / 20) * 20, round(point.y / 20) * 20) for point in points] == centers
    assert all(point.low_contrast for point in points)


@pytest.mark.parametrize(
    ("parts", "config", "expected"),
    [
        ([], KeypointConfig(), {"image_without_parts": 1}),
        ([part("head", None)], KeypointConfig(), {"part_without_mask": 1, "image_without_parts": 1}),
        (
            [part("eye", rectangle(50, 50, 7, 9))],
            KeypointConfig(),
            {"part_below_min_area": 1, "image_without_parts": 1},
        ),
        ([part("head", rectangle(20, 20, 40, 40))], KeypointConfig(), {"image_without_keypoint": 1}),
        ([part("head", rectangle(20, 20, 40, 40))] * 2, PER_PART, {"part_without_keypoint": 2}),
    ],
)
def test_what_gives_no_point_is_counted(parts: list, config: KeypointConfig, expected: dict[str, int]):
    points, reasons = select_keypoints(record(canvas(), dog(*parts)), config)
    assert points == []
    assert reasons == Counter(expected)


@pytest.mark.parametrize(("margin", "found"), [(4, True), (30, False)])
def test_the_margin_to_the_image_border(margin: int, found: bool):
    pixels = canvas()
    blob(pixels, 20, 80)
    scene = record(pixels, dog(part("tail", rectangle(0, 70, 30, 20))))
    points, _ = select_keypoints(scene, KeypointConfig(border_margin=margin))
    assert bool(points) is found


@pytest.mark.usefixtures("opencv_threads")
def test_threads_change_nothing():
    parts = [part("patch", rectangle(x, y, 40, 40)) for y in range(0, HEIGHT, 40) for x in range(0, WIDTH, 40)]
    results = []
    for threads in (1, 2, 4):
        cv2.setNumThreads(threads)
        results.append(select_keypoints(record(texture(), dog(*parts)), PER_PART))
    with ThreadPoolExecutor(3) as pool:
        results += pool.map(lambda _: select_keypoints(record(texture(), dog(*parts)), PER_PART), range(6))
    assert all(result == results[0] for result in results)


def test_a_one_pixel_wide_image_is_no_error():
    pixels = np.zeros((3, 1, 3), dtype=np.uint8)
    mask = np.ones((3, 1), dtype=bool)
    points, reasons = select_keypoints(record(pixels, dog(part("head", mask))), KeypointConfig(min_part_area=1))
    assert points == []
    assert reasons == Counter({"image_without_keypoint": 1})


@pytest.mark.parametrize("shape", [(400, 600), (401, 599), (120, 2000)])
def test_above_the_limit_points_are_found_in_a_reduced_image_at_the_same_place(shape: tuple[int, int]):
    height, width = shape
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    x, y = width * 0.4, height * 0.55
    blob(pixels, x, y, radius=9.0)
    mask = np.zeros(shape, dtype=bool)
    mask[int(y) - 30 : int(y) + 30, int(x) - 30 : int(x) + 30] = True
    scene = record(pixels, dog(part("head", mask)))
    (whole,), _ = select_keypoints(scene, KeypointConfig(max_pixels=height * width))
    (reduced,), _ = select_keypoints(scene, KeypointConfig(max_pixels=height * width // 5))
    assert not whole.reduced
    assert reduced.reduced
    assert (reduced.x, reduced.y) == pytest.approx((x, y), abs=1)
    assert reduced.size == pytest.approx(whole.size, rel=0.35)  # SIFT's scales step by a factor of 1.26


def test_the_second_pass_is_bounded_too(monkeypatch: pytest.MonkeyPatch):
    seen = []
    reduce = keypoints._reduce

    def watched(grey: np.ndarray, max_pixels: int) -> np.ndarray:
        seen.append(reduce(grey, max_pixels))
        return seen[-1]

    monkeypatch.setattr(keypoints, "_reduce", watched)
    smooth = record(canvas(), dog(part("head", rectangle(0, 0, WIDTH, HEIGHT))))
    assert select_keypoints(smooth, KeypointConfig(max_pixels=10_000))[0] == []
    assert [image.size <= 10_000 for image in seen] == [True, True]


@pytest.mark.parametrize("shape", [(1, 50_000), (50_000, 1), (2, 90_000), (300, 200)])
def test_no_shape_exceeds_the_limit(shape: tuple[int, int]):
    reduced = keypoints._reduce(np.zeros(shape, np.uint8), 10_000)
    assert 0 < reduced.size <= 10_000


def test_the_default_limit_is_in_no_fingerprint_and_another_one_is():
    assert "max_pixels" not in KeypointConfig().model_dump(mode="json")
    changed = KeypointConfig(max_pixels=1_000_000).model_dump(mode="json")
    assert KeypointConfig.model_validate(changed).max_pixels == 1_000_000


@pytest.mark.slow
def test_a_panorama_of_100_megapixels_keeps_to_the_memory_of_a_worker(tmp_path: Path):
    """The documented bound: 1 GB for the detection, and the decoded image."""
    stem = tmp_path / "images" / "train" / "n02423022" / "n02423022_1.JPEG"
    stem.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    panorama = np.full((7_000, 14_400, 3), 128, dtype=np.uint8)
    panorama[3_000:3_600, 4_000:4_600] = cv2.resize(rng.integers(0, 255, (60, 60, 3), np.uint8), (600, 600))
    cv2.imwrite(str(stem.with_suffix(".png")), panorama)
    whole = [0.0, 0.0, 14_400.0, 0.0, 14_400.0, 7_000.0, 0.0, 7_000.0]
    listed = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 14_400, 7_000], "segmentation": [whole]}
    image = {"id": 1, "file_name": "n02423022_1.JPEG", "width": 14_400, "height": 7_000}
    write_json(tmp_path / "train.json", coco([image], [listed], part_categories()))
    code = """
import resource, sys
from talking_points.build_config import KeypointConfig
from talking_points.candidates.build import build_candidates
from talking_points.sources import open_source
cv2 = __import__("cv2")
cv2.SIFT.create().detect(cv2.resize(cv2.UMat(10, 10, 0).get(), (500, 500)))  # what the libraries take themselves
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(record,) = open_source("partimagenet", sys.argv[1])
(candidate,), _ = build_candidates(record, "0" * 64, KeypointConfig())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20, candidate.flags, candidate.keypoint)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True, timeout=300
    )
    assert "'reduced_detection'" in ran.stdout
    assert float(ran.stdout.split()[0]) < 1.5, ran.stdout
