"""The digest that decides whether a source is listed again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tasks.index import tree_digest

TIME = 1_700_000_000


def write(path: Path, text: str, seconds: int = TIME) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (seconds, seconds))


def test_a_tree_without_links_keeps_its_digest(tmp_path: Path) -> None:
    """What was listed stays listed: names from the root, sizes and times, a folder's files before its folders."""
    for name, text in {"b/x.json": "abc", "a.json": "", "b/c/y.json": "no", "b/a/z.json": "yes!"}.items():
        write(tmp_path / name, text)
    sizes = {"a.json": 0, "b/x.json": 3, "b/a/z.json": 4, "b/c/y.json": 2}
    lines = "".join(f"{name}\0{size}\0{TIME}000000000\n" for name, size in sizes.items())
    assert tree_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    single = hashlib.sha256(f".\0{3}\0{TIME}000000000\n".encode()).hexdigest()
    assert tree_digest(tmp_path / "b" / "x.json") == single


@pytest.mark.parametrize("linked", ["annotations/train.json", "annotations", "."])
@pytest.mark.parametrize(("text", "seconds"), [("longer", TIME), ("new", TIME + 1)])
def test_edits_behind_a_link_change_the_digest(tmp_path: Path, linked: str, text: str, seconds: int) -> None:
    target = tmp_path / "elsewhere" / "annotations" / "train.json"
    write(target, "old")
    root = tmp_path / "root"
    link = root / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere" / linked)
    before = tree_digest(root)
    assert tree_digest(root) == before
    write(target, text, seconds)
    assert tree_digest(root) != before


def test_links_in_a_circle_and_into_nothing_end(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    write(root / "a" / "x.json", "x")
    write(other / "y.json", "y")
    (root / "a" / "up").symlink_to(root)
    (root / "out").symlink_to(other)
    (other / "back").symlink_to(root)
    (root / "nothing").symlink_to(tmp_path / "missing")
    before = tree_digest(root)
    write(other / "y.json", "longer")
    assert tree_digest(root) != before
