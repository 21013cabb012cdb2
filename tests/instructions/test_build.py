from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from talking_points.dataset_manifest import read_manifest
from talking_points.grounding.grammar import read_strict
from talking_points.grounding.rasters import iou, rasterise
from talking_points.instructions.config import SplitSettings
from talking_points.instructions.rows import read_instructions
from talking_points.instructions.schema import INSTRUCTION_SCHEMA
from talking_points.instructions.sides import ImageIdentity, assign_sides
from talking_points.publishing.card import image_modes
from talking_points.publishing.read_back import file_digests
from talking_points.publishing.rehydrate import RehydrateError, rehydrate
from talking_points.publishing.release import prepare_release
from talking_points.sources import open_source
from talking_points.sources.drawn import draw_sample
from tasks.instruction_orders import InstructionOrders
from tasks.running.shards import ShardFailed
from tests.instructions.building import build, settings_of

REFS = ("refcoco", "refcoco_plus", "refcocog")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    drawn = draw_sample(tmp_path_factory.mktemp("drawn"), 30, 4, variant="plain", sources=["refcoco", "partimagenet"])
    return {"partimagenet": drawn["partimagenet"], **dict.fromkeys(REFS, drawn["refcoco"])}


@pytest.fixture(scope="module")
def built(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "out"
    build(output, roots, "shard_size=9", "rows_per_file=40")
    return output


def digests(output: Path) -> dict[str, str]:
    files = [path for path in output.rglob("*") if path.is_file() and ".work" not in path.parts]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_row_can_be_read_again_and_its_ceiling_is_what_it_says(built: Path) -> None:
    rows = list(read_instructions(built))
    assert {row.split for row in rows} >= {"train", "test", "val"}
    for row in rows:
        assert row.image is not None
        if row.kind.endswith("_to_mask"):
            outlines = read_strict(row.answer).outlines
            assert outlines is not None
            assert iou(rasterise(outlines, row.width, row.height), row.mask) == pytest.approx(
                row.round_trip_iou, abs=1e-6
            )
    assert {row.kind for row in read_instructions(built, "test")} == {"text_to_mask"}
    assert {row.kind for row in read_instructions(built, "train")} > {"text_to_mask", "point_to_mask", "text_to_box"}


def test_no_image_is_on_both_sides_and_none_that_is_evaluated_on_is_trained_on(
    built: Path, roots: dict[str, Path]
) -> None:
    sides = {side: {row.image_sha256 for row in read_instructions(built, side)} for side in ("train", "test")}
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]
    evaluated = set()
    for name in REFS:
        for record in open_source(name, roots[name], exclude_evaluation_images=False):
            if record.split != "train":
                evaluated.add(hashlib.sha256(record.image_path.read_bytes()).hexdigest())
    assert evaluated
    assert not sides["train"] & evaluated
    manifest = read_manifest(built)
    assert manifest["excludes_evaluation_images"] is True
    left_out = {name: manifest["sources"][name]["skipped"].get("evaluation_image", 0) for name in REFS}
    assert sum(left_out.values()) > 0
    card = (built / "README.md").read_text()
    for name, title in zip(REFS, ("refCOCO", "refCOCO+", "refCOCOg"), strict=True):
        assert f"left out of {title}: {left_out[name]:,}." in card


def test_a_set_that_is_not_there_is_named(roots: dict[str, Path], tmp_path: Path) -> None:
    alone = Path(shutil.copytree(roots["refcoco"], tmp_path / "refer"))
    (alone / "refcocog/refs(umd).p").rename(alone / "refcocog/refs(google).p")  # whose images nothing is known from
    manifest = build(tmp_path / "out", {"refcoco": alone})
    assert manifest["unseen_evaluation_sets"] == ["refcocog"]
    assert read_manifest(tmp_path / "out")["unseen_evaluation_sets"] == ["refcocog"]
    assert "Not there when this was built: refCOCOg." in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), []),
        (("sources.refcocog.split=train",), ["refcocog"]),
        (("sources.refcocog.split=train", "sources.refcocog.options={split_by: google}"), ["refcocog"]),
        (("sources.refcocog.root=null",), ["refcocog"]),
    ],
)
def test_a_source_that_does_not_list_what_it_evaluates_on_is_named(
    roots: dict[str, Path], tmp_path: Path, options: tuple[str, ...], named: list[str]
) -> None:
    """refCOCOg has a root of its own here, so that the reader of refCOCO does not see it."""
    alone = Path(shutil.copytree(roots["refcoco"], tmp_path / "refer", copy_function=os.link))
    shutil.rmtree(alone / "refcocog")
    other = Path(shutil.copytree(roots["refcoco"], tmp_path / "other", copy_function=os.link))
    if "google" in str(options):
        (other / "refcocog/refs(umd).p").rename(other / "refcocog/refs(google).p")
    settings = settings_of(tmp_path / "out", {"refcoco": alone, "refcocog": other}, *options)
    given = {"refcoco": str(alone)} | ({} if "null" in str(options) else {"refcocog": str(other)})
    assert InstructionOrders(settings, given).assemble_settings().unseen_sets == named


def test_the_papers_way_is_a_setting_that_the_card_names(roots: dict[str, Path], tmp_path: Path) -> None:
    only = {name: roots[name] for name in REFS}
    manifest = build(tmp_path / "out", only, "split.exclude_evaluation_images=false", "instructions.order=rows")
    train = {row.image_sha256 for row in read_instructions(tmp_path / "out", "train")}
    assert train & {row.image_sha256 for row in read_instructions(tmp_path / "out", "test")}
    assert "evaluation_image" not in json.dumps(manifest["sources"])
    assert "**are trained on**" in (tmp_path / "out/README.md").read_text()
    answers = [row.answer for row in read_instructions(tmp_path / "out", "train") if row.kind.endswith("_to_mask")]
    for answer in answers:
        for ring in json.loads(answer[answer.index("[") : answer.rindex("]") + 1]):
            assert [y for _, y in ring] == sorted(y for _, y in ring)
    assert answers


def test_rows_do_not_depend_on_shards(built: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "out", roots, "shard_size=200", "rows_per_file=40")
    again, before = digests(tmp_path / "out"), digests(built)
    # The manifest counts shards, everything else is the same.
    changed = {name for name in before if before[name] != again[name]}
    assert again.keys() == before.keys()
    assert changed <= {"manifest.json", "README.md"}


def test_the_dataset_loads_plain_and_streaming(built: Path, tmp_path: Path) -> None:
    plain = datasets.load_dataset(str(built), cache_dir=str(tmp_path))
    stream = datasets.load_dataset(str(built), streaming=True)
    assert set(plain) == {"train", "test"}
    for side in plain:
        assert plain[side].features == datasets.Features.from_arrow_schema(INSTRUCTION_SCHEMA)
        assert plain[side]["id"][:] == [row["id"] for row in stream[side]]
    rows = {row.id: row for row in read_instructions(built, "test")}
    first = plain["test"][0]
    assert first["image"].size == (first["width"], first["height"])
    assert (first["question"], first["answer"]) == (rows[first["id"]].question, rows[first["id"]].answer)


def test_pixels_of_an_image_are_stored_once_in_a_file(built: Path) -> None:
    for path in (built / "data").iterdir():
        images = {row["image"]["bytes"] for row in pq.read_table(path, columns=["image"]).to_pylist()}
        assert path.stat().st_size < sum(map(len, images)) + 80_000


def test_rejected_regions_are_kept_with_their_reason(built: Path) -> None:
    manifest = read_manifest(built)
    counted = manifest["stages"]["regions"]["rejected"]
    found = pq.read_table(built / "rejected/regions.parquet").to_pylist()
    assert len(found) == sum(counted.values())
    assert {row["reason"] for row in found} == set(counted)
    assert all(re.fullmatch(r"[0-9a-f]{16}", row["id"]) and row["detail"] for row in found)


def test_published_without_pixels_and_put_back_the_files_are_the_same(
    built: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    release = prepare_release(built, "org/name", tmp_path / "work", images="reference")
    folder = tmp_path / "published"
    for name, file in release.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file.encode() if isinstance(file, str) else file.read_bytes())
    assert all(row.image is None for row in read_instructions(folder))
    assert "--root refcoco=DIR" in (folder / "README.md").read_text()
    with pytest.raises(RehydrateError, match="--partimagenet DIR --root refcoco=DIR"):
        rehydrate(folder, {}, tmp_path / "restored")
    rehydrate(folder, roots, tmp_path / "restored")
    whole, restored = (
        {path.name: path for path in (root / "data").iterdir()} for root in (built, tmp_path / "restored")
    )
    assert whole.keys() == restored.keys()
    assert file_digests(whole.values()) == file_digests(restored.values())


def test_drawn_sources_may_go_up_with_their_pixels(built: Path, tmp_path: Path) -> None:
    release = prepare_release(built, "org/name", tmp_path / "work")
    assert image_modes(release.manifest) == dict.fromkeys(("partimagenet", *REFS), "embed")
    assert not release.warnings


def identity(source: str, number: int, split: str, content: str = "", phash: int = 0) -> ImageIdentity:
    own = phash or int.from_bytes(hashlib.sha256(f"{source}{number}".encode()).digest()[:8], "big")
    return ImageIdentity(source, str(number), split, content or f"{source}{number}", own, 1.5)


def test_sides_follow_the_published_splits_and_what_looks_alike() -> None:
    parts = [identity("partimagenet", number, "train") for number in range(40)]
    given = [
        *parts,
        identity("refcoco", 1, "train"),
        identity("refcoco", 2, "testA"),
        identity("refcoco", 3, "train", "shared"),
        identity("refcocog", 3, "test", "shared"),
        identity("partimagenet", 90, "train", "refcoco1"),
        identity("partimagenet", 91, "train", "refcoco2"),
        identity("partimagenet", 92, "train", "shared"),
    ]
    sides = assign_sides(given, SplitSettings(), 0)

    def side(source: str, number: int) -> str:
        return sides[f"{source}\x1f{number}"]

    assert (side("refcoco", 1), side("refcoco", 2), side("refcocog", 3)) == ("train", "test", "test")
    assert side("refcoco", 3) == "left_out"
    assert [side("partimagenet", number) for number in (90, 91, 92)] == ["train", "test", "test"]
    assert 4 <= sum(side("partimagenet", number) == "test" for number in range(40)) <= 10
    as_papers = assign_sides(given, SplitSettings(exclude_evaluation_images=False), 0)
    assert as_papers["refcoco\x1f3"] == "train"
    assert assign_sides(list(reversed(given)), SplitSettings(), 0) == sides


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("instructions.regions=parts", "every region was rejected"),
        ("instructions.max_points=4", "every region was rejected"),
    ],
)
def test_builds_without_a_row_say_why(override: str, told: str, roots: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ShardFailed, match=told):
        build(tmp_path / "out", {"refcoco": roots["refcoco"]}, override)
