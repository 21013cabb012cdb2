from __future__ import annotations

import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from talking_points.sources.coco_index import CocoIndex
from talking_points.sources.json_text import check_json
from talking_points.sources.pascal_part116 import PascalPart116
from talking_points.sources.protocol import SourceError
from tests.sources.trees import annotation, coco, image_entry, pascal_tree, rectangle_polygon, write_json


@pytest.fixture
def source(tmp_path: Path) -> PascalPart116:
    return PascalPart116(pascal_tree(tmp_path / "root"))


def read(source: PascalPart116, content: Any, **options: bool) -> list[Any]:
    file = content if isinstance(content, Path) else write_json(source.root / "x.json", content)
    with CocoIndex(source, **options) as index:
        index.add(file, "train", lambda name: name.removesuffix(".jpg"))
        return list(index.images())


def test_images_come_sorted_with_their_annotations(source: PascalPart116) -> None:
    images = [image_entry(number, f"{name}.jpg") for number, name in enumerate("dacb")]
    annotations = [annotation(10 * i + j, i, 0, (1 + j, 1, 5, 5)) for j in range(3) for i in range(4)]
    listings = []
    for seed in range(5):
        random.Random(seed).shuffle(images)
        random.Random(seed).shuffle(annotations)
        listings.append(read(source, coco(images, annotations)))
    assert [image.image_id for image in listings[0]] == ["train/a", "train/b", "train/c", "train/d"]
    assert [item["id"] for item in listings[0][0].annotations] == [10, 11, 12]
    assert all(listing == listings[0] for listing in listings)
    assert source.skipped == {}


def test_the_lists_may_stand_in_any_order(source: PascalPart116) -> None:
    content = coco([image_entry(1, "a.jpg")], [annotation(1, 1, 0, (1, 1, 5, 5))], [{"id": 0, "name": "x"}])
    turned = dict(reversed(content.items()))
    assert read(source, turned) == read(source, content)


def test_what_does_not_fit_is_counted(source: PascalPart116) -> None:
    images = [image_entry(1, "a.jpg"), image_entry(1, "b.jpg"), image_entry(2, "a.jpg"), {"id": 3}, "nonsense"]
    annotations: list[Any] = [
        annotation(1, 1, 0, (1, 1, 5, 5)),
        annotation(2, 9, 0, (1, 1, 5, 5)),
        {"id": 3, "category_id": 0, "bbox": [1, 1, 5, 5]},
        annotation(4, 1, 0, (1, 1, 5, 5), category_id="dog"),
        annotation(5, 1, 0, (1, 1, 5, 5), category_id=[0]),
        None,
    ]
    (image,) = read(source, coco(images, annotations))
    assert [item["id"] for item in image.annotations] == [1]
    assert source.skipped == {
        "duplicate_image": 2,
        "malformed_image": 2,
        "annotation_without_image": 1,
        "malformed_annotation": 4,
    }


def test_files_of_a_union_share_ids_and_others_do_not(source: PascalPart116) -> None:
    first = write_json(source.root / "1.json", coco([image_entry(1, "a.jpg")], [annotation(1, 1, 0, (1, 1, 5, 5))]))
    second = write_json(
        source.root / "2.json",
        coco([image_entry(1, "a.jpg")], [annotation(1, 1, 0, (1, 1, 5, 5)), annotation(2, 1, 1, (1, 1, 5, 5))]),
    )
    for joint, expected in ((True, {"train/a": [1, 2]}), (False, {"train/a": [1], "val/a": [1, 2]})):
        source.skipped.clear()
        with CocoIndex(source, joint=joint) as index:
            for split, file in (("train", first), ("val", second)):
                index.add(file, split, lambda name: name.removesuffix(".jpg"))
            found = {image.image_id: [item["id"] for item in image.annotations] for image in index.images()}
            assert found == expected
            assert index.image_ids() == expected.keys()
            assert [item["id"] for item in index.annotations("train/a")] == expected["train/a"]
            assert index.annotations("train/b") == []
        assert source.skipped == ({"duplicate_annotation": 1} if joint else {})


@pytest.mark.parametrize("of_image", [1, 1.0, "1"])
@pytest.mark.parametrize("of_annotation", [1, 1.0, "1"])
def test_ids_that_went_through_floating_point_or_text_still_meet(
    source: PascalPart116, of_image: Any, of_annotation: Any
) -> None:
    items = [annotation(1, of_annotation, 3, (1, 1, 5, 5), category_id=3.0)]
    (image,) = read(source, coco([image_entry(of_image, "a.jpg")], items))
    assert [repr(item["category_id"]) for item in image.annotations] == ["3"]
    assert source.skipped == {}


def test_file_names_of_another_system_and_of_none(source: PascalPart116) -> None:
    names = ["sub\\a.jpg", ".", "/", "", None, 5]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    (image,) = read(source, coco(images, []))
    assert (image.image_id, image.file_name) == ("train/sub/a", "sub/a.jpg")
    assert source.skipped == {"malformed_image": 5}


def big_file(path: Path, count: int) -> str:
    images = [image_entry(number, f"{number:06}.jpg") for number in range(count)]
    annotations = [annotation(number, number, 0, (1, 1, 5, 5)) for number in range(count)]
    write_json(path, coco(images, annotations, [{"id": 0, "name": "x"}]))
    return path.read_text()


@pytest.mark.parametrize("where", ["images", "annotations", "cut", "end"])
def test_broken_json_names_file_byte_and_what_was_read(source: PascalPart116, where: str) -> None:
    file = source.root / "broken.json"
    text = big_file(file, 2000)
    if where == "cut":
        position = len(text) * 3 // 4
        text = text[:position]
    elif where == "end":
        position = len(text) + 1
        text += "]"
    else:
        start = text.index(f'"{where}"')
        position = text.index('"id": 1500', start) + 1
        text = text[: position - 1] + "?" + text[position:]
    file.write_text(text)
    with pytest.raises(SourceError) as error:
        read(source, file)
    message = str(error.value)
    assert f"{file}" in message
    assert f"byte {position} of {len(text)}" in message
    images = 1500 if where == "images" else 2000
    assert f"{images} images" in message
    if where == "annotations":
        assert "1500 annotations" in message
    assert "download it again" in message


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"images": {"id": NaN}}'])
def test_files_without_images_are_refused(source: PascalPart116, content: bytes) -> None:
    file = source.root / "x.json"
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.json"):
        read(source, file)


def test_memory_does_not_grow_with_the_file(source: PascalPart116) -> None:
    def peak(count: int) -> int:
        file = source.root / f"{count}.json"
        big_file(file, count)
        tracemalloc.start()
        with CocoIndex(source) as index:
            index.add(file, "train", lambda name: name)
            assert sum(1 for _ in index.images()) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # What other threads of the process take meanwhile is little beside what the file has grown by.
    grown = min(peak(3000) for _ in range(3)) - peak(1000)
    sizes = [(source.root / f"{count}.json").stat().st_size for count in (1000, 3000)]
    assert grown < 0.1 * (sizes[1] - sizes[0])


def test_a_full_disk_is_reported(source: PascalPart116, tmp_path: Path) -> None:
    big_file(source.root / "x.json", 3000)
    with CocoIndex(source) as index:
        index._database.execute("PRAGMA max_page_count = 20")  # as SQLite finds the disk full
        with pytest.raises(SourceError, match=r"cannot index .*full; free space"):
            index.add(source.root / "x.json", "train", lambda name: name)


def test_payloads_are_plain_json(source: PascalPart116) -> None:
    (image,) = read(source, coco([image_entry(1, "a.jpg")], [annotation(1, 1, 0, (1.5, 2.25, 5, 5))]))
    assert json.loads(json.dumps(image.annotations)) == image.annotations
    assert image.annotations[0]["bbox"] == [1.5, 2.25, 5, 5]


def test_a_split_may_have_no_images_but_not_no_list(source: PascalPart116) -> None:
    assert read(source, coco([], [])) == []
    with pytest.raises(SourceError, match='expected a COCO file with a list "images"'):
        read(source, {"info": {}, "images": {"1": "a.jpg"}})


def test_the_same_annotation_listed_twice_is_taken_once(source: PascalPart116) -> None:
    first, other = annotation(1, 1, 0, (1, 1, 5, 5)), annotation(1, 1, 0, (9, 9, 5, 5))
    (image,) = read(source, coco([image_entry(1, "a.jpg")], [first, first, other]))
    assert [item["bbox"] for item in image.annotations] == [[1, 1, 5, 5], [9, 9, 5, 5]]
    assert source.skipped == {"duplicate_annotation": 1}


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, 1),
        ({"area": 24.5, "iscrowd": None}, 1),
        ({"bbox": [1.0, 1.0, 5.0, 5.0]}, 1),
        ({"category_id": 1.0}, 2),
        ({"bbox": [1, 1, 5, 6]}, 2),
        ({"segmentation": [rectangle_polygon(1, 1, 5, 4)]}, 2),
        ({"segmentation": None}, 2),
    ],
)
def test_one_object_under_two_ids_is_taken_once(source: PascalPart116, changes: dict[str, Any], taken: int) -> None:
    one, other = annotation(1, 1, 0, (1, 1, 5, 5)), annotation(100_001, 1, 0, (1, 1, 5, 5), **changes)
    (image,) = read(source, coco([image_entry(1, "a.jpg")], [one, other]))
    assert [item["id"] for item in image.annotations] == [1, 100_001][:taken]
    assert source.skipped == ({"duplicate_annotation": 1} if taken == 1 else {})


def test_annotations_that_say_nothing_of_where_are_not_the_same(source: PascalPart116) -> None:
    bare = [{"id": number, "image_id": 1, "category_id": 0} for number in range(3)]
    (image,) = read(source, coco([image_entry(1, "a.jpg")], bare))
    assert len(image.annotations) == 3


GOOD = '{"id": 2, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5]}'
ODD = (
    "[NaN, 1, 5, 5]",
    "[1, 1, Infinity, 5]",
    "[1, 1, 5, -Infinity]",
)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("box", ODD)
def test_numbers_that_json_has_not_spoil_one_annotation(source: PascalPart116, mark: bytes, box: str) -> None:
    odd = '{"id": 1, "image_id": 1, "category_id": 0, "caption": "NaN \\" Infinity", "bbox": ' + box + "}"
    text = f'{{"images": [{{"id": 1, "file_name": "NaN.jpg"}}], "annotations": [{odd}, {GOOD}]}}'
    file = source.root / "x.json"
    file.write_bytes(mark + text.encode())
    (image,) = read(source, file)
    assert image.file_name == "NaN.jpg"
    assert [item["id"] for item in image.annotations] == [2]
    assert source.skipped == {"malformed_annotation": 1}


def test_ids_of_64_unsigned_bits_still_meet(source: PascalPart116) -> None:
    images = [image_entry(2**64 - 1, "a.jpg"), image_entry(2**63 - 1, "b.jpg"), image_entry(10**60, "c.jpg")]
    annotations = [annotation(2**64 - 1 - n, item["id"], 0, (n, 1, 5, 5)) for n, item in enumerate(images)]
    annotations.append(annotation(1, 10**60, 0, (1, 10**30, 5, 5)))
    assert [len(image.annotations) for image in read(source, coco(images, annotations))] == [1, 1, 2]


@pytest.mark.parametrize("side", ["500", 500.0, "", None])
def test_sizes_may_be_texts(source: PascalPart116, side: Any) -> None:
    (image,) = read(source, coco([image_entry(1, "a.jpg") | {"width": side}], []))
    assert image.width == (500 if side else None)


@pytest.mark.parametrize("side", ["wide", [500], True, 2.5, "9" * 30])
def test_sizes_that_are_no_numbers_are_counted(source: PascalPart116, side: Any) -> None:
    assert read(source, coco([image_entry(1, "a.jpg") | {"width": side}], [])) == []
    assert source.skipped == {"malformed_image": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 5_000_000, "nested more than 64 deep"),
        (b'{"a":' * 1_000_000, "nested more than 64 deep"),
        (b'{"images": [' + b"[" * 200_000 + b"]" * 200_000 + b"]}", "nested more than 64 deep"),
        ('{"images": []}'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        ('{"images": []}'.encode("utf-16-be"), "UTF-16 or UTF-32: save it as UTF-8"),
        ('{"images": []}'.encode("utf-32"), "UTF-32: save it as UTF-8"),
        (b'{"images": [{"id": 1, "file_name": "\xe4.jpg"}]}', "invalid bytes in UTF8"),
        (b'{"images": [{"id": 1e999, "file_name": "a.jpg"}]}', "overflow"),
    ],
    ids=["lists", "mappings", "inside", "utf-16", "utf-16 without mark", "utf-32", "latin-1", "huge float"],
)
def test_what_cannot_be_parsed_is_refused_at_once(source: PascalPart116, content: bytes, told: str) -> None:
    file = source.root / "x.json"
    file.write_bytes(content)
    started = time.process_time()
    with pytest.raises(SourceError, match=told) as refused:
        read(source, file)
    assert time.process_time() - started < 1
    assert str(file) in str(refused.value)


def test_brackets_inside_texts_are_no_nesting(source: PascalPart116) -> None:
    captions = [annotation(n, 1, 0, (n, 1, 5, 5)) | {"caption": ':[ "quoted" [{'} for n in range(50)]
    (image,) = read(source, coco([image_entry(1, "a.jpg")], captions))
    assert len(image.annotations) == 50


def test_a_folder_in_the_place_of_the_file_is_told(source: PascalPart116) -> None:
    folder = source.root / "x.json"
    folder.mkdir()
    with pytest.raises(SourceError, match=r"cannot read .*x\.json: .*found a folder"):
        read(source, folder)


def test_a_long_text_is_looked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_bytes(b'{"a": NaN, "b": "' + b"x" * 12_000_000 + b'"}')
    text, started = check_json(path), time.process_time()
    with text.open() as stream:
        assert len(b"".join(iter(lambda: stream.read(1 << 16), b""))) > 12_000_000
    assert time.process_time() - started < 3
