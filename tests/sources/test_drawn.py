from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from talking_points.sources import open_source
from talking_points.sources.drawn import HELD_OUT, draw_sample, drawn_roots
from talking_points.sources.drawn.canvas import Canvas, Light, Material, RegionKey
from talking_points.sources.drawn.curves import rounded_box, smooth_closed, smooth_open
from talking_points.sources.drawn.scenes import (
    AP10K_SPECIES,
    PARTIMAGENET_CLASSES,
    SETTINGS,
    draw_scene,
    split_of,
)
from talking_points.sources.drawn.writers import part_id, polygons
from talking_points.sources.labels import load_labels

IMAGES = 22
SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet", "ap10k", "refcoco")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return draw_sample(tmp_path_factory.mktemp("drawn"), IMAGES, seed=3)


def _digests(root: Path, *suffixes: str) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.suffix in suffixes
    }


def _annotations(path: Path) -> dict[int, dict]:
    return {entry["id"]: entry for entry in json.loads(path.read_text())["annotations"]}


def _pascal_maps(root: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for path in sorted(root.glob("annotations_detectron2_part/*/*.png")):
        split, stem = path.parent.name, path.stem
        images = [Image.open(path), Image.open(root / "annotations_detectron2_obj" / split / path.name)]
        assert all(image.mode == "L" for image in images)
        parts, objects = (np.asarray(image) for image in images)
        yield np.asarray(Image.open(root / "images" / split / f"{stem}.jpg")), objects, parts


def test_nothing_is_drawn_into_a_dataset_that_was_not(tmp_path: Path) -> None:
    real = tmp_path / "ADE20KPart234" / "ade20k_instance_train.json"
    real.parent.mkdir()
    real.write_text("real")
    with pytest.raises(ValueError, match=r"ADE20KPart234 holds something that was not drawn"):
        draw_sample(tmp_path, 1)
    assert real.read_text() == "real"
    assert list(tmp_path.iterdir()) == [real.parent]


def test_an_image_depends_on_seed_and_index_alone(sample: dict[str, Path], tmp_path: Path) -> None:
    fewer = draw_sample(tmp_path / "fewer", 5, seed=3, workers=2)
    other = draw_sample(tmp_path / "other", 1, seed=4)
    for source, root in fewer.items():
        whole, part = (_digests(path, ".jpg", ".JPEG", ".png") for path in (sample[source], root))
        assert part.items() <= whole.items()
        assert not _digests(other[source], ".jpg", ".JPEG").items() & whole.items()
        for path in root.rglob("*.json"):
            assert _annotations(path).items() <= _annotations(sample[source] / path.relative_to(root)).items()


def test_repeating_gives_the_same_files(tmp_path: Path) -> None:
    first, second = (draw_sample(tmp_path / name, 2, seed=1, variant="hard") for name in ("first", "second"))
    suffixes = (".jpg", ".JPEG", ".png", ".json", ".p")
    for source in SOURCES:
        assert _digests(first[source], *suffixes) == _digests(second[source], *suffixes)


def test_some_of_the_sources_can_be_drawn(tmp_path: Path) -> None:
    alone = draw_sample(tmp_path / "alone", 2, seed=1, sources=["partimagenet"])
    assert alone == {"partimagenet": drawn_roots(tmp_path / "alone")["partimagenet"]}
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["PartImageNet"]
    beside = draw_sample(tmp_path / "beside", 2, seed=1)
    assert _digests(alone["partimagenet"], ".JPEG") == _digests(beside["partimagenet"], ".JPEG") != {}


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    draw_sample(tmp_path, 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


def test_drawing_again_leaves_nothing_of_the_first_time(tmp_path: Path) -> None:
    draw_sample(tmp_path, 3, seed=1)
    foreign = tmp_path / "PascalPart116" / "images" / "train" / "2008_000002.jpg"
    foreign.write_bytes(b"")
    roots = draw_sample(tmp_path, 1, seed=2)
    for source, root in roots.items():
        images = [path for path in root.rglob("*") if path.suffix in (".jpg", ".JPEG") and path != foreign]
        assert len(images) == 1, source
    assert foreign.exists()


def test_no_images_give_empty_but_valid_layouts(tmp_path: Path) -> None:
    roots = draw_sample(tmp_path, 0)
    assert json.loads((roots["partimagenet"] / "train.json").read_text())["annotations"] == []
    assert len(list((roots["ap10k"] / "annotations").glob("*.json"))) == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": -1},
        {"images": 10**6},
        {"images": 1, "workers": 0},
        {"images": 1, "variant": "easy"},
        {"images": 1, "sources": ["coco"]},
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        draw_sample(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_pascal_parts_lie_on_their_objects(sample: dict[str, Path]) -> None:
    owner = {part["id"]: part["object_id"] for part in load_labels("pascal_part116")["parts"]}
    count = 0
    for pixels, objects, parts in _pascal_maps(sample["pascal_part116"]):
        count += 1
        assert pixels.shape[:2] == objects.shape == parts.shape
        assert objects.dtype == parts.dtype == np.uint8
        labelled = parts < 255
        assert np.isin(np.unique(objects), [*range(20), 255]).all()
        assert (np.vectorize(owner.get)(parts[labelled]) == objects[labelled]).all()
    assert count == IMAGES


def test_ade_parts_lie_in_their_instances(sample: dict[str, Path]) -> None:
    root, source = sample["ade20k_part234"], "ade20k_part234"
    owner = {part["id"]: part["object_id"] for part in load_labels(source)["parts"]}
    without_parts = 0
    for split, folder in (("train", "training"), ("val", "validation")):
        coco = COCO(str(root / f"ade20k_instance_{split}.json"))
        assert [category["id"] for category in coco.dataset["categories"]] == list(range(44))
        for image in coco.dataset["images"]:
            label = Image.open(root / "annotations_detectron2_part" / folder / f"{image['file_name'][:-4]}.png")
            assert label.mode.startswith("I;16")
            parts = np.asarray(label)
            assert parts.shape == (image["height"], image["width"])
            assert (root / "images" / folder / image["file_name"]).is_file()
            claimed = np.zeros(parts.shape, int)
            for entry in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                mask = coco_mask.decode(entry["segmentation"]).astype(bool)
                claimed += mask
                assert mask.sum() == entry["area"]
                present = sorted(set(parts[mask].tolist()) - {65535})
                assert present == entry.get("part_category_id", [])
                assert all(owner[part] == entry["category_id"] for part in present)
                without_parts += "part_category_id" not in entry
            assert claimed.max() == 1
            assert (claimed[parts != 65535] == 1).all()


def test_partimagenet_polygons_are_the_visible_parts(sample: dict[str, Path]) -> None:
    root = sample["partimagenet"]
    classes = {entry["wnid"]: entry for entry in load_labels("partimagenet")["classes_known"]}
    repeated = 0
    for split in ("train", "val"):
        coco = COCO(str(root / f"{split}.json"))
        names = [category["name"] for category in coco.dataset["categories"]]
        assert names == [part["name"] for part in load_labels("partimagenet")["parts"]]
        for image in coco.dataset["images"]:
            wnid = image["file_name"][:9]
            assert classes[wnid]["ood_split"] == split
            with Image.open(root / "images" / split / wnid / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
            entries = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
            assert entries
            categories = [entry["category_id"] for entry in entries]
            repeated += len(categories) > len(set(categories))
            for entry in entries:
                assert coco.cats[entry["category_id"]]["supercategory"] == classes[wnid]["supercategory"]
                mask = coco.annToMask(entry)
                assert abs(int(mask.sum()) - entry["area"]) <= 0.25 * entry["area"] + 40
    assert repeated


def test_ap10k_keypoints_lie_on_their_animals(sample: dict[str, Path]) -> None:
    root = sample["ap10k"]
    names = [keypoint["name"] for keypoint in load_labels("ap10k")["keypoints"]]
    labelled, animals = 0, 0
    union: dict[int, dict] = {}
    for part in ("train", "val", "test"):
        coco = COCO(str(root / "annotations" / f"ap10k-{part}-split1.json"))
        assert len(coco.cats) == 54
        assert coco.cats[1]["keypoints"] == names
        union |= coco.imgs
        for entry in coco.dataset["annotations"]:
            keypoints = np.array(entry["keypoints"]).reshape(17, 3)
            seen = keypoints[:, 2] > 0
            x, y, width, height = entry["bbox"]
            assert entry["num_keypoints"] == seen.sum() > 0
            assert (keypoints[~seen] == 0).all()
            assert ((keypoints[seen, :2] >= (x, y)) & (keypoints[seen, :2] < (x + width, y + height))).all()
            labelled, animals = labelled + int(seen.sum()), animals + 1
    assert len(union) == IMAGES
    assert labelled / animals > 8


def test_seen_landmarks_lie_on_pixels_of_their_own_animal() -> None:
    checked = 0
    for index in range(6):
        scene = draw_scene("ap10k", 5, index)
        owners = np.array([-1, *(region.instance for region in scene.regions)])[scene.ids]
        for position, instance in enumerate(scene.instances):
            marks = {landmark.name: landmark for landmark in instance.landmarks}
            assert {"nose", "neck", "root_of_tail"} <= marks.keys()
            tail, nose = marks["root_of_tail"], marks["nose"]
            spread = np.argwhere(owners == position)
            if len(spread) > 1000 and {"left_eye", "right_eye"} - marks.keys():
                # Seen from the side, an animal whose nose is on the viewer's right shows its right eye.
                assert ("right_eye" in marks) == (nose.x > tail.x)
                checked += 1
    assert checked


def test_enough_categories_and_pairs(sample: dict[str, Path]) -> None:
    pairs: set[tuple[str, str]] = set()
    names = {part["id"]: part for part in load_labels("pascal_part116")["parts"]}
    for _, _, parts in _pascal_maps(sample["pascal_part116"]):
        pairs |= {(names[value]["object"], names[value]["part"]) for value in np.unique(parts[parts < 255])}
    ade = {part["id"]: part for part in load_labels("ade20k_part234")["parts"]}
    for entry in _annotations(sample["ade20k_part234"] / "ade20k_instance_train.json").values():
        pairs |= {(ade[value]["object"], ade[value]["part"]) for value in entry.get("part_category_id", ())}
    image_net = {part["id"]: part for part in load_labels("partimagenet")["parts"]}
    for entry in _annotations(sample["partimagenet"] / "train.json").values():
        part = image_net[entry["category_id"]]
        pairs.add((part["supercategory"], part["part"]))
    assert len(pairs) >= 100
    assert len({name for name, _ in pairs}) >= 25


def test_holes_and_repeated_classes_occur(sample: dict[str, Path]) -> None:
    """An eye punches a hole into its head, and one map value may cover several animals."""
    holes = several = 0
    for _, objects, parts in _pascal_maps(sample["pascal_part116"]):
        for value in np.unique(objects[objects < 255]):
            several += cv2.connectedComponents((objects == value).astype(np.uint8))[0] > 2
        for value in np.unique(parts[parts < 255]):
            _, tree = cv2.findContours((parts == value).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            holes += bool((tree[0][:, 3] >= 0).any())
    assert holes
    assert several


def test_hard_images_show_several_of_one_class() -> None:
    for source in ("pascal_part116", "ade20k_part234", "ap10k"):
        scenes = [draw_scene(source, 0, index, "hard") for index in range(4)]
        for scene in scenes:
            assert len({instance.category for instance in scene.instances}) == 1
        assert all(3 <= len(scene.instances) <= 5 for scene in scenes)
    assert len(draw_scene("partimagenet", 0, 0, "hard").instances) == 1


def test_plain_images_show_every_thing_in_one_source_only() -> None:
    things = {
        source: {
            instance.category for index in range(40) for instance in draw_scene(source, 0, index, "plain").instances
        }
        for source in ("pascal_part116", "ade20k_part234", "partimagenet")
    }
    assert all(len(names) > 2 for names in things.values())
    assert sum(map(len, things.values())) == len(set().union(*things.values()))


def test_held_out_species_are_drawn_for_ap10k_only() -> None:
    families = {species["name"]: species["family"] for species in load_labels("ap10k")["species"]}
    held_out = {name for names in HELD_OUT.values() for name in names}
    elsewhere = {thing for classes in PARTIMAGENET_CLASSES.values() for _, thing, _ in classes}
    for settings in SETTINGS.values():
        for setting in settings:
            elsewhere |= {*setting.about, *setting.beside}
    assert held_out <= AP10K_SPECIES.keys()
    assert not held_out & elsewhere
    for family, names in HELD_OUT.items():
        assert all(families[name] == family for name in names)


def test_splits_have_the_expected_shares() -> None:
    held = sum(split_of("pascal_part116", index) == "val" for index in range(4000))
    assert 0.17 < held / 4000 < 0.21


@pytest.mark.parametrize(
    ("source", "category", "drawn", "expected"),
    [
        ("pascal_part116", "dog", "paw", "dog's paw"),
        ("pascal_part116", "cow", "hoof", "cow's leg"),
        ("pascal_part116", "cat", "muzzle", "cat's head"),
        ("pascal_part116", "bicycle", "frame", None),
        ("ade20k_part234", "person", "upper arm", "person's arm"),
        ("ade20k_part234", "car", "hood", "car's hood"),
        ("ade20k_part234", "car", "roof", None),
        ("partimagenet", "Quadruped", "horn", "Quadruped Head"),
        ("partimagenet", "Bicycle", "wheel", "Bicycle Tier"),
        ("partimagenet", "Bottle", "cap", "Bottle Mouth"),
    ],
)
def test_drawn_parts_take_the_names_of_each_source(source: str, category: str, drawn: str, expected: str) -> None:
    names = {part["id"]: part["name"] for part in load_labels(source)["parts"]}
    found = part_id(source, category, drawn)
    assert (None if found is None else names[found]) == expected


def test_the_id_map_shows_what_is_in_front() -> None:
    canvas = Canvas(80, 60, np.random.default_rng(0), Light())
    canvas.begin("card")
    back, front = (canvas.region(RegionKey(0, name)) for name in ("back", "front"))
    canvas.polygon([(10, 10), (70, 10), (70, 50), (10, 50)], Material((200, 0, 0), roundness=0), back)
    canvas.polygon([(30, 20), (90, 20), (90, 40), (30, 40)], Material((0, 200, 0), roundness=0), front)
    assert canvas.ids[30, 20] == back
    assert canvas.ids[30, 79] == front
    assert canvas.ids[30, 5] == 0
    assert np.allclose(canvas.pixels[:, 30, 50], (0, 200, 0))
    assert canvas.regions[front - 1].part == "front"


def test_polygons_of_a_ring_leave_its_hole_open() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:70] = True
    mask[20:40, 30:50] = False
    rles = coco_mask.frPyObjects(polygons(mask), *mask.shape)
    drawn = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.92


def test_curves_pass_through_their_points() -> None:
    knots = np.array([(0.0, 0.0), (2.0, 1.0), (3.0, -1.0), (5.0, 0.0)])
    assert np.allclose(smooth_open(knots, 4)[::4], knots)
    assert np.allclose(smooth_closed(knots, 5)[::5], knots)
    box = rounded_box(0, 0, 4, 2, 0.5)
    assert np.allclose([box.min(axis=0), box.max(axis=0)], [(0, 0), (4, 2)])


def test_expressions_single_out_what_they_refer_to(sample: dict[str, Path]) -> None:
    leaks = 0
    for name in ("refcoco", "refcoco_plus", "refcocog"):
        source = open_source(name, sample["refcoco"], exclude_evaluation_images=False)
        count = 0
        for record in source:
            said = [expression for item in record.objects for expression in item.expressions]
            assert len(said) == len(set(said)), f"{record.image_id}: {said}"
            for item in record.objects:
                count += 1
                assert item.mask is not None
                assert any(item.name in expression for expression in item.expressions)
                if any(expression.startswith("left ") for expression in item.expressions):
                    alike = [other for other in record.objects if other.name == item.name]
                    assert item.bbox[0] + item.bbox[2] / 2 == min(o.bbox[0] + o.bbox[2] / 2 for o in alike)
                if name == "refcoco_plus":
                    assert not any(word in " ".join(item.expressions) for word in ("left", "right", "middle"))
        assert count > IMAGES / 2
        assert source.skipped == {}
        strict = open_source(name, sample["refcoco"], "train")
        list(strict)
        leaks += strict.skipped["evaluation_image"]
    assert leaks > 0  # as in the real sets, which share their images
