"""A pipe or a device in the place of a file is refused at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from talking_points.regular_files import IrregularFileError, check_regular, find_foreign, open_regular, read_text
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
