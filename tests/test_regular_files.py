"""A pipe or a device in the place of a file is refused at once."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from commands.init import write_project
from talking_points import regular_files
from talking_points.config import ConfigError, load_config
from talking_points.dataset_files import read_groups
from talking_points.descriptions.keypoint_texts import read_texts
from talking_points.descriptions.model_identity import identify_model
from talking_points.errors import InputError
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.description_sets import read_descriptions
from talking_points.evaluation.reports import Report
from talking_points.examples.asked_rows import open_rows
from talking_points.grounding.golden import check as check_golden
from talking_points.instructions.phrasings import load_phrasings
from talking_points.models.model_folders import loading, tell_kind
from talking_points.regular_files import (
    IrregularFileError,
    check_regular,
    find_foreign,
    open_regular,
    read_bytes,
    read_lines,
    read_text,
)
from talking_points.sources.drawn import MARKER, draw_sample
from talking_points.sources.json_text import check_json
from talking_points.sources.pascal_instances import UnusableInstancesError, instances_from_mat
from talking_points.sources.protocol import SourceError
from talking_points.sources.refs import read_mirrored_splits, read_pickled_refs
from talking_points.whole_files import file_sha256


def plant(place: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(place))
        server.close()
    else:
        place.symlink_to(kind)


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "/dev/zero", "/dev/stdin"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    place = Path("x")
    plant(place, kind)
    if kind == "/dev/stdin" and place.is_file():
        pytest.skip("the input of these tests is a file")
    for read in (open_regular, read_text, check_regular, file_sha256):
        with pytest.raises(IrregularFileError, match="expected a file"):
            read(place)


def test_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("ä\r\nb\rc".encode())
    (tmp_path / "b").symlink_to("a")
    assert read_text(tmp_path / "b") == "ä\nb\nc"
    check_regular(tmp_path / "nothing")


def test_a_file_takes_the_memory_that_it_needs_however_large_it_might_be(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 50_000)
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path / "image", 2 << 30)) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [40, 60, 80, 100])
def test_a_file_that_grows_while_it_is_read_is_read_to_its_end_or_refused(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 40)
    looks, look = iter([b"", b"x" * 40]), os.fstat

    def look_before_it_grows(descriptor: int) -> os.stat_result:
        found = look(descriptor)
        with log.open("ab") as stream:
            stream.write(next(looks, b""))
        return found

    monkeypatch.setattr("talking_points.regular_files.os.fstat", look_before_it_grows)
    if limit < 80:
        with pytest.raises(IrregularFileError, match="at most"):
            read_bytes(log, limit)
    else:
        assert read_bytes(log, limit) == b"x" * 80


@pytest.mark.parametrize("kind", ["pipe", "/nowhere", "/dev/zero", "."])
def test_links_and_pipes_are_found_at_any_depth(tmp_path: Path, kind: str) -> None:
    for depth in range(3):
        (tmp_path / "a/b/c").mkdir(parents=True, exist_ok=True)
        (tmp_path / "a/b/c/file").write_text("")
        assert find_foreign(tmp_path) is None
        place = tmp_path.joinpath(*"abc"[:depth]) / "x"
        plant(place, kind)
        assert find_foreign(tmp_path) == find_foreign(place) == place
        place.unlink()


READERS: dict[str, Callable[[Path], object]] = {
    "annotations": check_json,
    "references": lambda path: list(read_pickled_refs(path, lambda *_: None)),
    "report": Report.load,
    "digest": file_sha256,
    "tokenizer": lambda path: tell_kind(path.parent),
    "model": lambda path: tell_kind(path.parent),
    "weights": lambda path: identify_model(str(path.parent)),
    "rows": lambda path: open_rows(path, "describe"),
    "rows.parquet": lambda path: open_rows(path, "localize"),
    "configuration": lambda path: load_config(EvaluateConfig, path),
    "phrasings": lambda path: load_phrasings(str(path)),
    "texts": read_texts,
    "descriptions": read_descriptions,
    "dataset": lambda path: next(iter(read_groups(path, ["id"]))),
    "splits": lambda path: list(read_mirrored_splits(path)),
    "instances": lambda path: instances_from_mat(path, (4, 4)),
    "golden": check_golden,
    "library": lambda path: _load_with_library(path.parent),
}
_NAMES = {
    **{"tokenizer": "tokenizer.json", "model": "config.json", "library": "config.json", "weights": "config.json"},
    **{"rows": "x.jsonl", "configuration": "x.yaml", "phrasings": "x.yaml"},
    **dict.fromkeys(("rows.parquet", "dataset", "splits"), "x.parquet"),
}


def _init(folder: Path) -> object:
    return write_project(folder)


def _draw(folder: Path) -> object:
    return draw_sample(folder, 0, sources=["partimagenet"])


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (_init, "prefect.yaml"),
        (_init, "configs"),
        (_init, "configs/build"),
        (_init, "configs/build/rules.yaml"),
        (_draw, "PartImageNet/train.json"),
        (_draw, "PartImageNet/images/train"),
        (_draw, "PartImageNet"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link_that_was_there(tmp_path: Path, write: Any, name: str, there: bool) -> None:
    """A folder from somebody else: its links lead to files that are not there yet, or to those of its reader."""
    outside, folder = tmp_path / "outside", tmp_path / "project"
    target = outside / "config"
    outside.mkdir()
    if there and "." in name:
        target.write_text("mine")
    elif there:
        target.mkdir()
    (folder / name).parent.mkdir(parents=True)
    if name.startswith("PartImageNet/"):
        (folder / "PartImageNet" / MARKER).write_text("")
    (folder / name).symlink_to(target)
    with pytest.raises(ConfigError, match="is a link, and what is written there would go to where it leads"):
        write(folder)
    left = [path for path in outside.rglob("*") if path.is_file()]
    assert left == ([target] if there and "." in name else [])
    assert all(path.read_text() == "mine" for path in left)
    beside = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name for path in beside} <= {MARKER}


def _load_with_library(folder: Path) -> None:
    with loading(folder, "model"):
        raise AssertionError("it is looked at before a library reads it")


@pytest.mark.parametrize("name", READERS)
def test_readers_of_foreign_files_do_not_wait_for_a_pipe(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"architectures": 5}')
    path = tmp_path / _NAMES.get(name, "x.json")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    refusals = (ValueError, InputError, SourceError, UnusableInstancesError)
    with pytest.raises(refusals, match=r"found a pipe|no (config\.json|configuration at|descriptions at)|Errno 22"):
        READERS[name](path)


@pytest.mark.parametrize("name", sorted(set(READERS) - {"digest", "weights"}))
def test_readers_of_foreign_files_do_not_read_a_file_that_is_all_holes(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["PointLocalizer"]}')
    path = tmp_path / _NAMES.get(name, "x.json")
    path.write_bytes(b"PAR1" if path.suffix == ".parquet" else b'{"a": 1,')
    os.truncate(path, 100 << 30)
    started = time.process_time()
    with pytest.raises((ValueError, InputError, SourceError, UnusableInstancesError)):
        READERS[name](path)
    assert time.process_time() - started < 3


def test_a_line_without_end_costs_no_other_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_files, "LINE", 10)
    monkeypatch.setattr(regular_files, "WHOLE", 40)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"0123456789\n" + b"1" * 9 + b"\n" + b"2" * 30 + b"\n{}\nend")
    assert list(read_lines(path)) == [None, b"1" * 9 + b"\n", None, b"{}\n", b"end"]
    path.write_bytes(b"{}\n" + b"2" * 80)
    with pytest.raises(IrregularFileError, match="found one of more than"):
        list(read_lines(path))
    monkeypatch.setattr(regular_files, "LINE", 40)
    monkeypatch.setattr(regular_files, "WHOLE", 400)
    asked = [{"image": "a", "text": text} for text in ("x", "y" * 20, "z")]
    path.write_text("\n".join(map(json.dumps, asked)))
    rows = list(open_rows(path, "localize"))
    assert [getattr(row, "problem", "")[:26] for row in rows] == ["", "the line is longer than 67", ""]


def test_a_file_that_grows_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    assert regular_files.read_bytes(tmp_path / "x", 4) == b"1234"
    for read in (regular_files.read_bytes, check_regular, open_regular):
        with pytest.raises(IrregularFileError, match="at most 3 bytes, found 4"):
            read(tmp_path / "x", 3)


def test_a_matlab_file_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    packer, packed = zlib.compressobj(9), b""
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    path = tmp_path / "x.mat"
    path.write_bytes(b" " * 126 + b"IM" + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(UnusableInstancesError, match="unpacks to more"):
        instances_from_mat(path, (4, 4))


def test_architectures_of_another_type_are_named(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")
    for value in (5, "x", {"a": 1}, [], [None]):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": value}))
        with pytest.raises(ConfigError, match="architectures in"):
            tell_kind(tmp_path)
