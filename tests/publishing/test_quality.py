"""The quality report: its numbers on texts that are known, its files, and its page in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from talking_points.build_config import CropConfig
from talking_points.config import ConfigError
from talking_points.descriptions.gaussian_crop import gaussian_crop
from talking_points.publishing.quality import (
    BEGINNING,
    EXAMPLES,
    add_images,
    choose_examples,
    distinct_n,
    draw_image_url,
    level_shares,
    measure,
    read_rows,
    self_bleu,
    write_quality_report,
)
from tests.publishing.small_dataset import ROWS, write_dataset

DOG = "The point is on the dog, which is toward the left of the image, "
EAR = DOG + "on its ear close to the top edge of the dog"
PLACE = EAR + ", and within the ear, it is slightly below the center"
LOOK = PLACE + ", in a region that features a dark spot on brown fur"


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b c", "a b d"], 1, 4 / 6),
        (["a b c", "a b d"], 2, 3 / 4),
        (["A b c", "a B C"], 3, 1 / 2),
        (["a", "b"], 2, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct_n(texts: list[str], n: int, expected: float) -> None:
    assert distinct_n(texts, n) == pytest.approx(expected, abs=1e-4)


def test_self_bleu_is_one_for_equal_texts_and_low_for_others() -> None:
    equal = self_bleu(["the point is on the dog"] * 3)
    different = self_bleu(["the point is on the dog", "a wheel of some red lorry", "under every old chair we see"])
    assert equal == pytest.approx(1.0)
    assert different is not None
    assert different < 0.2
    assert self_bleu(["alone"]) is None


def test_levels_are_counted_one_by_one() -> None:
    texts = (f"{text}." for text in (EAR, PLACE, LOOK, "The point is on the ear"))
    rows = [{"description": text, "object": "dog", "part": "ear"} for text in texts]
    assert level_shares(rows) == {"object_place": 0.75, "part_place": 0.75, "point_place": 0.5, "look": 0.25}


def test_examples_follow_the_seed_and_the_rows_not_their_order() -> None:
    rows: list[dict[str, Any]] = [{"id": f"{number:016x}"} for number in range(100)]
    chosen = choose_examples(rows, 10, 0)
    assert chosen == choose_examples(reversed(rows), 10, 0)
    assert chosen != choose_examples(rows, 10, 1)
    assert len({row["id"] for row in chosen}) == 10


def reject(output: Path, ids: list[str], objects: list[str]) -> None:
    """Rejected rows of two stages, and the sampled points they were."""
    rejected = [
        {"id": row, "source": "pascal_part116", "stage": "verify", "reason": "too_short", "text": "<b>x</b>"}
        for row in ids
    ]
    rejected.append({"id": "", "source": "pascal_part116", "stage": "candidates", "reason": "no_keypoint", "text": ""})
    (output / "rejected").mkdir()
    pq.write_table(pa.Table.from_pylist(rejected), output / "rejected" / "verify.parquet")
    (output / ".work" / "sample").mkdir(parents=True)
    pq.write_table(pa.table({"id": ids, "object": objects}), output / ".work" / "sample" / "00000.rows.parquet")
    pq.write_table(pa.table({"path": ["a"]}), output / ".work" / "sample" / "00000.parquet")


def test_acceptance_by_source_category_and_reason(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    reject(output, ["x1", "x2"], ["dog", "cat"])
    quality = measure(output, read_rows(output))
    assert quality["sources"]["pascal_part116"] == {"accepted": 6, "rejected": 2, "share": 0.75}
    assert quality["sources"]["partimagenet"] == {"accepted": 6, "rejected": 0, "share": 1.0}
    assert quality["categories"]["dog"] == {"accepted": 6, "rejected": 1, "share": 0.8571}
    assert quality["categories"]["cat"] == {"accepted": 0, "rejected": 1, "share": 0.0}
    assert quality["reasons"] == {"verify: too_short": 2, "candidates: no_keypoint": 1}
    assert quality["stages"]["verify"]["accepted"] == 0.9


def test_rows_by_how_often_they_were_written(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    manifest = json.loads((output / "manifest.json").read_text())
    refined = {"shards": 1, "rows_in": 20, "rows_out": 20, "rejected": {}, "rounds": {"1": 17, "2": 3}}
    manifest["stages"] = {"refine": refined, **manifest["stages"]}
    (output / "manifest.json").write_text(json.dumps(manifest))
    page = write_quality_report(output)[0]
    assert "<td>1: 17, 2: 3</td>" in page.read_text()


def test_the_paper_stands_beside(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    lines = {line["what"]: line for line in measure(output, read_rows(output))["paper"]}
    assert lines["triplets"] == {"what": "triplets", "paper": "20K+", "ours": "18"}
    assert lines["train / test"]["ours"] == "12 / 6"
    assert lines["object categories"]["paper"] == "64"
    people = next(line for name, line in lines.items() if "people" in name)
    assert "talking-points audit" in people["ours"]
    (output / "audit").mkdir()
    (output / "audit" / "report.json").write_text(json.dumps({"shares": [{"threshold": 0.1, "share": 0.925}]}))
    people = next(line for line in measure(output, read_rows(output))["paper"] if "people" in line["what"])
    assert people["ours"] == "92.5 % within 0.1"


def test_the_report_is_written_and_written_again_the_same(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    paths = write_quality_report(output)
    assert [path.name for path in paths] == ["index.html", "examples.png", "close_ups.png", "quality.json"]
    contents = [path.read_bytes() for path in paths]
    assert contents == [path.read_bytes() for path in write_quality_report(output)]
    page = paths[0].read_text()
    assert page.count("data:image/jpeg;base64,") == min(EXAMPLES, sum(ROWS.values())) + 1
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    with Image.open(paths[1]) as sheet:
        assert sheet.width == 2400


def test_the_close_ups_are_those_of_the_local_captioner(tmp_path: Path) -> None:
    crop = {"surround": "black", "min_side": 32, "size": 168}
    config = {"seed": 0, "images": "embed", "refine": {"backend": "rules"}, "crop": crop}
    output = write_dataset(tmp_path / "dataset", config=config)
    write_quality_report(output)
    first = choose_examples(read_rows(output), 1, 0)[0]
    add_images(output, [first])
    pixels = np.asarray(Image.open(io.BytesIO(first["image"])))
    expected = gaussian_crop(pixels, first["keypoint"], first["part_bbox"], CropConfig.model_validate(crop))
    with Image.open(output / "report" / "close_ups.png") as sheet:
        assert sheet.size == (6 * 168, 3 * 186)
        found = np.asarray(sheet)[2:166, 2:166]
    resized = cv2.resize(expected, (164, 164), interpolation=cv2.INTER_AREA)
    away_from_the_ring = np.hypot(*np.mgrid[-82:82, -82:82]) > 12
    np.testing.assert_array_equal(found[away_from_the_ring], resized[away_from_the_ring])


def test_a_dataset_without_pixels_has_a_page_without_images(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset", images="reference")
    paths = write_quality_report(output)
    assert [path.name for path in paths] == ["index.html", "quality.json"]
    assert "pixels are not part" in paths[0].read_text()


def test_the_ring_is_around_the_point_at_any_size() -> None:
    plain = Image.new("RGB", (960, 640), "#808080")
    encoded = io.BytesIO()
    plain.save(encoded, format="PNG")
    row = {"image": encoded.getvalue(), "image_width": 960, "image_height": 640, "keypoint": [600.0, 200.0]}
    url = draw_image_url(row)
    assert url is not None
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as shown:
        assert shown.size == (480, 320)
        red = [(x, y) for x in range(480) for y in range(320) if _is_red(shown.getpixel((x, y)))]
    xs, ys = [x for x, _ in red], [y for _, y in red]
    assert (min(xs) + max(xs)) / 2 == pytest.approx(300, abs=1)
    assert (min(ys) + max(ys)) / 2 == pytest.approx(100, abs=1)
    assert max(xs) - min(xs) < 28


def _is_red(pixel: Any) -> bool:
    red, green, blue = pixel
    return bool(red > 180 and green < 90 and blue < 90)


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        write_quality_report(tmp_path)


def test_texts_are_shown_as_texts(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    hostile = "<script>alert(1)</script>"
    for path in (output / "data").iterdir():
        table = pq.read_table(path)
        column = table.schema.get_field_index("description")
        pq.write_table(table.set_column(column, "description", pa.array([hostile] * table.num_rows)), path)
    page = write_quality_report(output)[0].read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_of_very_long_texts_the_beginning_is_measured(tmp_path: Path) -> None:
    """One description of a foreign dataset may be megabytes; without a bound this takes minutes and gigabytes."""
    output = write_dataset(tmp_path / "dataset")
    for path in (output / "data").iterdir():
        table = pq.read_table(path)
        for name in ("description", "draft", "object"):
            long = [f"dog {row} " + " ".join(map(str, range(row, row + 60_000))) for row in range(table.num_rows)]
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(long))
        pq.write_table(table, path)
    start = time.monotonic()
    page = write_quality_report(output)[0].read_text()
    assert time.monotonic() - start < 60
    quality = json.loads((output / "report/quality.json").read_text())
    assert quality["longer"] == {"characters": BEGINNING, "descriptions": sum(ROWS.values())}
    assert f"{sum(ROWS.values())} descriptions are longer than {BEGINNING} characters" in page
    assert len(page) < 1_000_000
