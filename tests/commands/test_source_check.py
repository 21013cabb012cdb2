"""``doctor --source mp100``: what is there, what is missing and where it comes from; damaged folders are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from talking_points.config import ConfigError
from talking_points.examples.config import KeypointFiles
from talking_points.examples.pose_files import open_poses
from talking_points.sources.drawn import draw_sample
from talking_points.sources.mp100 import Mp100
from talking_points.sources.mp100_check import check_mp100


def run(*arguments: object, columns: int = 160) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"COLUMNS": str(columns)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return draw_sample(tmp_path, 30, 3, sources=["mp100"])["mp100"]


def test_missing_images_are_counted_by_category_and_their_dataset_is_named(root: Path) -> None:
    before = {one.category: one for one in check_mp100(root)}
    assert len(before) == 100
    assert sum(one.references for one in before.values()) > 20
    dog = next(one for one in before.values() if one.name.endswith("_body") and one.found)
    for path in (root / "images" / dog.name).glob("*"):
        path.unlink()
    after = {one.category: one for one in check_mp100(root)}
    assert after[dog.category].missing == dog.references
    done = run("--source", "mp100", root)
    assert done.exit_code == 0, done.output
    assert "AP-10K: " in done.stdout
    assert dog.name in done.stdout
    there = sum(one.found for one in after.values())
    assert f"{there} of {sum(one.references for one in after.values())} images are there" in done.stdout
    insects = {one.category: one for one in before.values()}
    assert "h5" in insects[66].note
    assert {insects[18].dataset, insects[40].dataset} == {"300W", "AFLW"}
    dresses = {one.name: one.dataset for one in before.values() if one.name.endswith("_dress")}
    assert set(dresses.values()) == {"DeepFashion2"}, dresses
    narrow = run("--source", "mp100", root, columns=80)
    cells = [[cell.strip() for cell in line.split("│")] for line in narrow.stdout.splitlines() if "│" in line]
    assert "…" not in narrow.stdout
    assert "".join(row[2] for row in cells).count(dog.name), "a name goes on in the next line"


def test_what_is_no_mp100_is_refused_in_words(root: Path, tmp_path: Path) -> None:
    annotations = root / "annotations"
    empty = tmp_path / "empty"
    for name in ("annotations", "images"):
        (empty / name).mkdir(parents=True)
    hostile = {
        "images": [{"id": 1, "file_name": "../../etc/passwd"}, {"id": [], "file_name": 3}, {}],
        "annotations": [{"image_id": 1, "category_id": 3, "id": 1}, {"image_id": 9}, {"category_id": "x"}],
        "categories": [],
    }
    for content, message in (
        ("{", "mp100_split1_train.json"),
        ("[]", "COCO file"),
        ('{"images": [3], "annotations": []}', "COCO file"),
        (json.dumps(hostile), "none of the 1 images"),
    ):
        (empty / "annotations" / "mp100_split1_train.json").write_text(content)
        done = run("--source", "mp100", empty)
        assert done.exit_code == 2, done.output
        assert message in done.output.replace("\n", "")
    assert annotations.is_dir()
    for arguments, message in ((("mp100", tmp_path / "none"), "expected the dataset"), (("coco", root), "mp100 DIR")):
        done = run("--source", *arguments)
        assert done.exit_code == 2
        assert message in done.output.replace("\n", " ")


def _as_named(root: Path) -> None:
    pass


def _at_the_root(root: Path) -> None:
    for folder in (root / "images").iterdir():
        folder.rename(root / folder.name)


def _per_dataset(root: Path) -> None:
    """Folders of other names, a level deeper."""
    for folder in list((root / "images").iterdir()):
        (root / "images" / f"of {folder.name}").mkdir()
        folder.rename(root / "images" / f"of {folder.name}" / "data")


def _flat(root: Path) -> None:
    for path in list((root / "images").glob("*/*")):
        path.rename(root / "images" / path.name)


@pytest.mark.parametrize("arrange", [_as_named, _at_the_root, _per_dataset, _flat])
def test_images_are_found_in_the_layouts_that_people_have(root: Path, arrange: Callable[[Path], None]) -> None:
    names = [path.name for path in (root / "images").glob("*/*")]
    assert len(set(names)) == len(names), "else a flat folder could not hold them"
    before = [record.objects for record in Mp100(root, "train")]
    assert before
    there = [one.found for one in check_mp100(root)]
    arrange(root)
    assert [one.found for one in check_mp100(root)] == there
    assert [record.objects for record in Mp100(root, "train")] == before


def test_files_of_the_same_names_are_not_taken_for_a_categorys_images(root: Path) -> None:
    """COCO and AP-10K number their files alike: what holds few of them, or of other sizes, is another dataset."""
    counts = {one.category: one for one in check_mp100(root)}
    lost = max(counts.values(), key=lambda one: one.found)
    folder = root / "images" / lost.name
    other = root / "images" / "elsewhere"
    folder.rename(other)
    assert {one.category: one for one in check_mp100(root)}[lost.category].found == lost.found
    paths = sorted(other.iterdir())
    for path in paths:
        Image.new("RGB", (7, 9)).save(path)
    assert {one.category: one for one in check_mp100(root)}[lost.category].found == 0
    for path in paths[len(paths) // 2 - 1 :]:
        path.unlink()
    assert {one.category: one for one in check_mp100(root)}[lost.category].found == 0


def test_links_to_the_datasets_are_followed_where_settings_name_their_places(root: Path, tmp_path: Path) -> None:
    """As MP-100's authors advise: ``ln -s COCO mp100/human_body``; but an unpacked folder may hold any link."""
    before = [record.objects for record in Mp100(root, "train")]
    elsewhere = (root / "images").rename(tmp_path / "datasets")
    root = root.rename(tmp_path / "linked")
    (root / "images").mkdir()
    for folder in elsewhere.iterdir():
        (root / "images" / folder.name).symlink_to(folder)
    closed = Mp100(root, "train")
    assert not list(closed)
    assert closed.skipped["path_outside_root"] > 0
    assert [record.objects for record in Mp100(root, "train", links=[elsewhere])] == before
    assert not list(Mp100(root, "train", links=[tmp_path / "other"]))
    done = run("--source", "mp100", root)
    assert done.exit_code == 0, done.output
    named = done.stdout.partition("poses.links=[")[2].partition("]")[0].replace("\n", "").split(", ")
    assert {Path(place).parent for place in named} == {elsewhere}
    with pytest.raises(ConfigError, match="says where its links lead to"):
        open_poses(KeypointFiles(root=root), "train")
    assert len(open_poses(KeypointFiles(root=root, links=[elsewhere]), "train"))
