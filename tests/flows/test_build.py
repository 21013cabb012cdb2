"""The whole pipeline on drawn sources, through a real orchestrator."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from talking_points.config import ConfigError
from talking_points.dataset_schema import features
from talking_points.sources import open_source
from tasks.running.manifests import Manifest
from tasks.running.runner import BuildFailed
from tasks.running.storage import Storage
from tasks.running.text_shards import read_texts
from tests.flows.building import SOURCES, build, data_digests, made
from tests.prefect_records import prefect_records

pytestmark = pytest.mark.usefixtures("orchestrator")


@pytest.fixture(scope="module")
def built(orchestrator: None, drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of the drawn sample. Copy it before changing it."""
    output = tmp_path_factory.mktemp("built") / "out"
    result = build(output, drawn)
    assert result["rows"] > 0
    assert result["reused_shards"] == 0
    return output


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_the_dataset_loads_with_the_promised_features(built: Path) -> None:
    plain = datasets.load_dataset(str(built))
    streamed = datasets.load_dataset(str(built), streaming=True)
    for split in ("train", "test"):
        assert plain[split].features == features()
        assert streamed[split].features == features()
        first, same = plain[split][0], next(iter(streamed[split]))
        assert first["id"] == same["id"]
        assert first["image"].size == (first["image_width"], first["image_height"])
    rows = [row for split in plain.values() for row in split]
    assert len({row["id"] for row in rows}) == len(rows)
    counts = [sum(row["source"] == number for row in rows) for number in range(3)]
    assert len(set(counts)) == 1, "sources have equal shares"
    share = plain["test"].num_rows / len(rows)
    assert abs(share - 4 / 21) < 3 / len(rows)
    sides = {name: {row["image_sha256"] for row in split} for name, split in plain.items()}
    assert not sides["train"] & sides["test"]


def test_every_keypoint_lies_in_its_part_and_images_are_untouched(built: Path, drawn: dict[str, Path]) -> None:
    dataset = datasets.load_dataset(str(built)).cast_column("image", datasets.Image(decode=False))
    rows = {(SOURCES[row["source"]], row["image_id"]): row for split in dataset.values() for row in split}
    checked = 0
    for name in SOURCES:
        for record in open_source(name, drawn[name]):
            row = rows.get((name, record.image_id))
            if row is None:
                continue
            x, y = (round(value) for value in row["keypoint"])
            parts = [
                part
                for thing in record.objects
                for part in thing.parts
                if (thing.name, part.name) == (row["object"], row["part"])
            ]
            assert any(part.mask is not None and part.mask[y, x] for part in parts)
            assert row["image"]["bytes"] == record.image_path.read_bytes()
            checked += 1
    assert checked == len(rows)


def test_the_folder_says_how_it_was_made(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["rows"]["train"] + manifest["rows"]["test"] == sum(
        s["points"] for s in manifest["sources"].values()
    )
    assert manifest["availability"]["objects_available"] == 64
    assert manifest["availability"]["pairs_available"] == 363
    digests = data_digests(built)
    assert {Path(file["path"]).name: file["sha256"] for file in manifest["files"]} == digests
    card = (built / "README.md").read_text()
    assert str(manifest["rows"]["train"]) in card
    for figure in manifest["figures"]:
        assert (built / figure).stat().st_size > 1000


def test_the_figures_are_on_the_page_of_the_run(built: Path) -> None:
    artifacts = json.loads(prefect_records()["artifacts"])
    pages = [entry["data"] for entry in artifacts if entry["key"] == "dataset-figures" and str(built) in entry["data"]]
    for name in ("acceptance", "composition", "examples", "lengths"):
        shown = re.search(rf"!\[{name}\]\(data:image/webp;base64,([^)]+)\)", pages[0])
        assert shown
        assert Image.open(io.BytesIO(base64.b64decode(shown[1]))).width > 300


def test_a_second_run_makes_nothing(copy: Path, drawn: dict[str, Path]) -> None:
    before = data_digests(copy)
    result = build(copy, drawn, "workers=3")
    assert result["executed_shards"] == 0
    assert result["reused_shards"] > 5
    assert data_digests(copy) == before


def test_shards_workers_and_file_order_change_no_byte(built: Path, drawn: dict[str, Path], tmp_path: Path) -> None:
    moved = {}
    for name in SOURCES:
        moved[name] = tmp_path / "moved" / name
        files = [path for path in drawn[name].rglob("*") if path.is_file()]
        random.Random(1).shuffle(files)
        for file in files:
            target = moved[name] / file.relative_to(drawn[name])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_shuffled(file))
    build(tmp_path / "small", moved, "shard_size=5", "workers=1")
    assert data_digests(tmp_path / "small") == data_digests(built)


def _shuffled(file: Path) -> bytes:
    """The file, with the lists of a joint annotation file in another order."""
    content = file.read_bytes()
    if file.suffix != ".json":
        return content
    value = json.loads(content)
    for key in ("images", "annotations"):
        random.Random(2).shuffle(value[key])
    return json.dumps(value).encode()


def test_a_changed_prompt_makes_only_what_depends_on_it(copy: Path, drawn: dict[str, Path], tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "prompts" / "refine.jinja"
    prompt = tmp_path / "refine.jinja"
    prompt.write_text(shipped.read_text().replace("{% block", "{# changed #}{% block", 1))
    with pytest.raises(ConfigError, match=r"refine\.prompt"):
        build(copy, drawn, f"refine.prompt={prompt}")
    build(copy, drawn, f"refine.prompt={prompt}", "resume=if_possible")
    assert set(made(copy)) == {"refine", "verify", "assemble"}


def test_without_the_local_caption_only_the_merge_is_made_anew(copy: Path, drawn: dict[str, Path]) -> None:
    before = {row["id"]: row for row in datasets.load_dataset(str(copy), split="train")}
    ablation = ("merged_captions=object_caption", "verification.require_look=false", "resume=if_possible")
    build(copy, drawn, *ablation)
    assert made(copy).keys() == {"generate", "refine", "verify", "assemble"}
    for row in datasets.load_dataset(str(copy), split="train"):
        caption = before[row["id"]]["local_caption"]
        assert caption in before[row["id"]]["description"]
        assert row["local_caption"] == caption, "the column stays"
        assert caption not in row["description"]


def test_damaged_and_deleted_shards_are_made_again(copy: Path, drawn: dict[str, Path]) -> None:
    before = data_digests(copy)
    shard = copy / ".work" / "generate" / "00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(bytes(content))
    next((copy / ".work" / "candidates").rglob("*.parquet")).unlink()
    next((copy / "data").iterdir()).write_bytes(b"not parquet")
    build(copy, drawn)
    assert made(copy) == {"candidates": 1, "generate": 1, "assemble": 1}
    assert data_digests(copy) == before


def test_bad_images_are_quarantined_and_good_rows_kept(drawn: dict[str, Path], tmp_path: Path) -> None:
    roots = {name: Path(shutil.copytree(drawn[name], tmp_path / name)) for name in SOURCES}
    images = sorted(roots["pascal_part116"].rglob("images/train/*.jpg"))
    images[0].write_bytes(images[0].read_bytes()[:2000])
    images[1].write_bytes(b"not an image")
    labels = sorted(roots["pascal_part116"].rglob("annotations_detectron2_part/train/*.png"))
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(labels[2])
    result = build(tmp_path / "out", roots)
    assert result["rejected"] >= 3
    rejected = datasets.Dataset.from_parquet(str(tmp_path / "out" / "rejected" / "candidates.parquet"))
    reasons = {row["image_path"]: row["reason"] for row in rejected}
    assert reasons[f"images/train/{images[0].name}"] == "truncated_image"
    assert reasons[f"images/train/{images[1].name}"] == "unreadable_image"
    assert reasons[f"images/train/{images[2].name}"] == "label_size_mismatch"


def test_limit_gives_a_preview(drawn: dict[str, Path], tmp_path: Path) -> None:
    result = build(tmp_path, drawn, "limit=6")
    assert result["rows"] == 6
    assert json.loads((tmp_path / "manifest.json").read_text())["partial"] is True


def test_a_failing_shard_fails_the_run_at_its_end_and_only_it_is_made_again(
    drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(storage: Storage, manifest: Manifest) -> dict[str, str]:
        if manifest["shard"] == 1 and manifest["stage"] == "generate":
            raise OSError("the disk is gone")
        return read_texts(storage, manifest)

    monkeypatch.setattr("tasks.running.merging.read_texts", broken)
    with pytest.raises(BuildFailed, match=r"refine-1.*the disk is gone"):
        build(tmp_path, drawn, "shard_size=8")
    monkeypatch.undo()
    build(tmp_path, drawn, "shard_size=8")
    assert made(tmp_path) == {"refine": 1, "verify": 1, "assemble": 1}


def test_a_shard_with_too_many_rejected_rows_fails(drawn: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="rows rejected"):
        build(tmp_path, drawn, "verification.min_words=139", "verification.attempts=1")
