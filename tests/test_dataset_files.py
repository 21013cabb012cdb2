"""A dataset makes its reader open nothing but its own Parquet files: no address and no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talking_points import parquet_sizes
from talking_points.audit.items import load_questions
from talking_points.config import ConfigError
from talking_points.dataset_files import DatasetError, dataset_names, read_dataset, read_groups, read_texts, readable
from talking_points.dataset_schema import COLUMNS, triplet_schema
from talking_points.errors import InputError
from talking_points.examples.points import load_points
from talking_points.publishing.forms import TRIPLETS
from talking_points.publishing.quality import read_rows, write_quality_report
from talking_points.publishing.rehydrate import rehydrate
from talking_points.publishing.release import prepare_release
from tasks.running.storage import Storage
from tests.publishing.small_dataset import write_dataset, write_sources
from tests.watching import NETWORK, watched

URL = "http://127.0.0.1:9/image.png"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset", rows={"train": 3, "test": 3})


def rewrite(output: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change every Parquet file, and let the manifest agree with it."""
    from talking_points.whole_files import file_sha256

    manifest = json.loads((output / "manifest.json").read_text())
    for file in manifest["files"]:
        path = output / file["path"]
        pq.write_table(change(pq.read_table(path)), path)
        file |= {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    (output / "manifest.json").write_text(json.dumps(manifest))


def with_column(name: str, values: Callable[[int], pa.Array], metadata: Any = None) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, values(table.num_rows))
        return table.replace_schema_metadata(metadata and {"huggingface": json.dumps(metadata)})

    return changed


def readers(output: Path, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Everything of ours that reads rows."""
    return {
        "training": lambda: list(load_points(output, "train").images(_digests(output))),
        "streamed": lambda: list(load_points(output, "train", streaming=True).images(_digests(output))),
        "rehydrate": lambda: rehydrate(output, write_sources(tmp_path / "sources"), tmp_path / "restored"),
        "publish": lambda: prepare_release(output, "org/name", tmp_path / "work"),
        "report": lambda: write_quality_report(output),
        "audit": lambda: load_questions(output, share=1.0),
    }


def _digests(output: Path) -> set[str]:
    return {example.image for example in load_points(output, "train").examples}


def paths_only(target: str) -> Callable[[int], pa.Array]:
    kind = COLUMNS["image"][0]
    return lambda rows: pa.array([{"bytes": None, "path": target}] * rows, kind)


def plain(target: str) -> Callable[[int], pa.Array]:
    return lambda rows: pa.array([target] * rows)


HOSTILE = {
    "images that are paths": lambda target: with_column("image", paths_only(target)),
    "images that are text": lambda target: with_column("image", plain(target)),
    "texts declared as images": lambda target: with_column(
        "description", plain(target), {"info": {"features": {"description": {"_type": "Image"}}}}
    ),
    "texts that are image cells": lambda target: with_column("description", paths_only(target)),
    "other sources": lambda target: with_column(
        "source", lambda rows: pa.array([0] * rows), {"info": {"features": {"source": {"names": [target]}}}}
    ),
}


@pytest.mark.parametrize("way", HOSTILE)
@pytest.mark.parametrize("remote", [False, True])
def test_rows_open_nothing(output: Path, tmp_path: Path, way: str, remote: bool) -> None:
    """A canary beside the dataset, and an address: neither is opened, by any reader, and no traceback is ours."""
    canary = tmp_path / "canary.png"
    canary.write_bytes(b"canary")
    rewrite(output, HOSTILE[way](URL if remote else str(canary)))
    for reader, read in readers(output, tmp_path).items():
        with watched() as seen, suppress(InputError):
            read()
        assert not [what for what in seen if "canary" in what or NETWORK in what], reader
    copies = [path for folder in ("restored", "work") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert not [path for path in copies if b"canary.png" in path.read_bytes() and path.suffix == ".png"]


@pytest.mark.parametrize(
    "card",
    [
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {target}\n",
        "configs:\n- config_name: default\n  data_dir: {target}\n",
        "dataset_info:\n  features:\n  - name: description\n    dtype: image\n",
    ],
)
@pytest.mark.parametrize("target", ["../secret/*.parquet", "{folder}/secret/a.parquet", URL])
def test_a_card_names_no_files(output: Path, tmp_path: Path, card: str, target: str) -> None:
    secret = write_dataset(tmp_path / "secret_dataset", rows={"train": 1})
    (tmp_path / "secret").mkdir()
    next((secret / "data").iterdir()).rename(tmp_path / "secret" / "a.parquet")
    (output / "README.md").write_text(f"---\n{card.format(target=target.format(folder=tmp_path))}---\n# A card\n")
    with watched() as seen:
        points = load_points(output, "train")
    assert len(points) == 3
    assert not [what for what in seen if "secret" in what or NETWORK in what]


def test_other_folders_and_names_hold_no_rows(output: Path) -> None:
    data = output / "data"
    for name in ("validation-00000-of-00001.csv", "../validation-0.parquet", "sub/validation-0.parquet"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes((data / "train-00000-of-00001.parquet").read_bytes())
    with pytest.raises(ConfigError, match=r"no file data/validation.*its splits: test, train"):
        load_points(output, "validation")
    assert dataset_names(output, "data/test-*.parquet") == ["data/test-00000-of-00001.parquet"]
    (data / "test-1.parquet").symlink_to("/etc/passwd")
    for read in (lambda: load_points(output, "test"), lambda: load_questions(output)):
        with pytest.raises(InputError, match="outside the dataset"):
            read()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("description", pa.scalar(None, pa.string()), "empty cells"),
        ("keypoint", pa.scalar([float("nan"), 1.0], COLUMNS["keypoint"][0]), "not finite"),
        ("source", pa.scalar(99), "name none of 5 sources"),
        ("image_width", pa.scalar(0), "below one pixel"),
        ("image_width", pa.scalar(2**40), "cannot be read as Parquet"),
        ("keypoint", pa.scalar([1.0, 2.0, 3.0]), "cannot be read as Parquet"),
        ("object", pa.scalar(b"dog"), "expected column 'object' as string"),
    ],
)
def test_values_that_no_build_writes(output: Path, column: str, value: pa.Scalar, message: str) -> None:
    rewrite(output, with_column(column, lambda rows: pa.array([value.as_py()] * rows, value.type)))
    path = output / dataset_names(output, "data/*.parquet")[0]
    with pytest.raises(DatasetError, match=message) as refused:
        list(read_groups(path, tuple(COLUMNS)))
    assert ".parquet" in str(refused.value)


def test_wider_numbers_and_longer_lists_are_converted(output: Path) -> None:
    wide = pa.list_(pa.float64())
    rewrite(output, with_column("keypoint", lambda rows: pa.array([[1.0, 2.0]] * rows, wide)))
    rewrite(output, with_column("image_width", lambda rows: pa.array([120] * rows, pa.int64())))
    rows = read_rows(output)
    assert rows[0]["keypoint"] == [1.0, 2.0]
    assert load_points(output, "train").examples[0].keypoint == (1.0, 2.0)


@pytest.mark.parametrize("folder", ["a[b]*?", "with space", "ünïcode"])
def test_folders_with_odd_names(tmp_path: Path, folder: str) -> None:
    assert len(load_points(write_dataset(tmp_path / folder, rows={"train": 2}), "train")) == 2


def test_a_repository_without_a_network_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("org/name", "not/a/repository", "../name", "org/name\0"):
        with watched() as seen, pytest.raises(DatasetError, match="cannot read the dataset"):
            read_dataset(name, "train", ("id",))
        assert not [what for what in seen if NETWORK in what]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return next(
        (write_dataset(tmp_path_factory.mktemp("fuzz") / "d", rows={"train": 3}) / "data").iterdir()
    ).read_bytes()


def _damaged(content: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    return bytes(damaged[: int(cut * len(damaged))])


DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 1) | st.floats(0.9, 1), st.integers(0, 255)), max_size=6),
    st.just(1.0) | st.floats(0, 1),
)


def _read(path: Path) -> None:
    with suppress(DatasetError):
        rows = [row for table in read_groups(path, triplet_schema().names) for row in table.to_pylist()]
        assert all(np.isfinite(row["keypoint"]).all() for row in rows)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "train-0.parquet"
    path.write_bytes(_damaged(content, *damage))
    _read(path)


@pytest.mark.parametrize("name", ["text", "image"])
def test_one_value_that_many_rows_name_is_counted_for_each(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_sizes, "ROW_GROUP", 50 << 20)
    large = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int32()), pa.array([b"x" * 1_000_000]))
    texts = large.cast(pa.binary()).cast(pa.string())
    image = pa.StructArray.from_arrays([large.cast(pa.binary()), texts], ["bytes", "path"])
    table = pa.table({"text": texts, "image": image, "id": [str(number) for number in range(100)]})
    pq.write_table(table, tmp_path / "x.parquet", dictionary_pagesize_limit=1 << 30, compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    with pytest.raises(DatasetError, match="unpacks to"), readable("x"):
        parquet_sizes.refuse_large(tmp_path / "x.parquet", [name])
    with pytest.raises(ValueError, match="unpacks to"):
        Storage(tmp_path).read_table("x.parquet", [name])
    assert Storage(tmp_path).read_table("x.parquet", ["id"]).num_rows == 100
    if name == "text":
        with pytest.raises(DatasetError, match="unpacks to"):
            read_texts(tmp_path / "x.parquet", [name])


def _all(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    return with_column(name, lambda rows: pa.array([value] * rows, COLUMNS[name][0]))


@pytest.mark.parametrize("reader", ["publish", "report"])
@pytest.mark.parametrize("images", ["embed", "reference"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_all("id", "same"), r"several rows have the id 'same' \(row 1 again\)"),
        (_all("keypoint", [121.0, 1.0]), r"train-.*keypoint of the row '0{16}' \(row 0\) lies outside its image"),
        (_all("keypoint", [1.0, -3.0]), "keypoint of the row .* lies outside its image"),
        (_all("keypoint_normalized", [0.5, 1.5]), "keypoint_normalized of the row .* lies outside its image"),
    ],
)
def test_rows_that_no_build_writes_are_named(
    output: Path, tmp_path: Path, reader: str, images: str, change: Any, problem: str
) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps(manifest | {"config": {"images": images}}))
    rewrite(output, change)
    with pytest.raises(DatasetError, match=problem):
        readers(output, tmp_path)[reader]()
    assert not (tmp_path / "work").exists(), "nothing is written for a dataset that does not go up"


JUDGE = {"by": "model", "model": "m", "scale": [1, 5], "sources": {}, "histogram": {}}
LOCALIZER = JUDGE | {"by": "localizer"}


def scored(*scores: Any, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.append_column("judge_score", pa.array(scores, kind or pa.float32()))


def judged(output: Path, judge: dict[str, Any] | None) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps(manifest | ({"judge": judge} if judge else {})))


@pytest.mark.parametrize("reader", ["publish", "report"])
@pytest.mark.parametrize(
    ("judge", "change", "problem"),
    [
        (JUDGE, scored(1, math.nan, 5), "judge_score.* not finite"),
        (JUDGE, scored(1, math.inf, 5), "judge_score.* not finite"),
        (JUDGE, scored(1, None, 1e30), "judge_score of row 2 is 1e\\+30, its manifest says 1 to 5"),
        (LOCALIZER, scored(0, 1, -0.5), "judge_score of row 2 is -0.5, its manifest says 0 to 1"),
        (JUDGE, scored("a", "b", "c", kind=pa.string()), "expected column 'judge_score' as float"),
        (JUDGE, scored(True, False, None, kind=pa.bool_()), "expected column 'judge_score' as float"),
        (JUDGE, lambda table: table, "has no scores of a judge, its manifest tells of one"),
        (None, scored(1, 2, 3), "has scores of a judge, its manifest tells of none"),
    ],
)
def test_scores_that_no_judge_gave(
    output: Path, tmp_path: Path, reader: str, judge: dict[str, Any] | None, change: Any, problem: str
) -> None:
    judged(output, judge)
    rewrite(output, change)
    with pytest.raises(DatasetError, match=problem):
        readers(output, tmp_path)[reader]()


@pytest.mark.parametrize("further", [(), ("judge_score",)])
def test_what_a_file_holds_or_tells_besides_does_not_go_up(output: Path, tmp_path: Path, further: tuple[str]) -> None:
    """Neither a column that no schema has nor types of features of its own; what a build wrote goes up as it is."""
    judged(output, JUDGE if further else None)
    plain_table = scored(1, None, 5) if further else lambda table: table
    own = triplet_schema(further=further)
    rewrite(output, lambda table: plain_table(table).cast(own))
    assert prepare_release(output, "org/name", tmp_path / "work").data["data/test-00000-of-00001.parquet"].parent == (
        output / "data"
    )
    told = {"huggingface": json.dumps({"info": {"features": {"draft": {"_type": "Image"}}}})}
    for change in (
        lambda table: table.append_column("url", pa.array([URL] * 3)),
        lambda table: table.replace_schema_metadata(told),
    ):
        rewrite(output, change)
        for path in prepare_release(output, "org/name", tmp_path / "work").data.values():
            assert path.is_relative_to(tmp_path / "work")
            assert pq.read_schema(path).names == own.names
            assert TRIPLETS.wrote(path)
    assert own in TRIPLETS.schemas, "read back, it is what was built"


@pytest.mark.parametrize("rows", [{"train": 3}, {"train": 3, "test": 4}, {"train": 3, "test": 3, "val": 1}])
def test_rows_of_a_split_that_the_manifest_counts_otherwise(output: Path, tmp_path: Path, rows: dict[str, int]) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps(manifest | {"rows": rows}))
    with pytest.raises(DatasetError, match=r"data/(test|val)-\*\.parquet hold \d rows, the manifest (says|does not)"):
        prepare_release(output, "org/name", tmp_path / "work")


def test_a_folder_in_the_place_of_a_report_is_named(output: Path) -> None:
    (output / "report" / "index.html").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"index\.html, found a folder"):
        write_quality_report(output)
