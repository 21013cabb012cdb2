"""Finding the files of a dataset whose folders were renamed, nested once more or copied by another system."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from talking_points.sources.protocol import SkippedImage, Source, SourceError

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})
"""Of the published datasets."""

_FURTHER_EXTENSIONS = frozenset({".jfif", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Of images in a user's own folder, which are looked for after those."""

_IMPOSSIBLE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors that say of a path that nothing can be there; others say that the disk or its permissions fail."""

_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation|val|set|[ab])?(?!(?-i:[a-z]))", re.IGNORECASE)
"""A word of its own, so that "valley.json" is of no split."""

_GENERIC_SPLITS = {"training": "train", "validation": "val", "testing": "test"}


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _folders(folder: Path) -> list[Path]:
    """Visible subfolders by name, without the "__MACOSX" that archives from there unpack beside the data."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def find_root(root: str | Path, spellings: Sequence[str], is_dataset: Callable[[Path], bool], expected: str) -> Path:
    """The resolved folder that holds the dataset: ``root`` itself, or up to two levels below it.

    Below ``root`` are searched its only subfolder, and subfolders spelled like the dataset (letters and digits
    compared, case ignored, so "PascalPart116" = "pascal_part_116"). That covers a parent folder of any
    name and one accidental extra nesting level. ``expected`` says in words what ``is_dataset`` looks for.
    Raises ``SourceError`` for a missing root, no match, or several.
    """
    start = Path(root).expanduser()
    if not start.is_dir():
        found = "a file" if start.exists() else "nothing"
        raise SourceError(f"expected the dataset folder at {start}, found {found} there; check the configured root")
    start = start.resolve()
    names = {_plain(spelling) for spelling in spellings}
    level = [start]
    for _ in range(3):
        matches = [folder for folder in level if is_dataset(folder)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(str(match) for match in matches)
            raise SourceError(f"expected one dataset below {start}, found {len(matches)}: {listed}; name one as root")
        below = []
        for folder in level:
            children = _folders(folder)
            below += [c for c in children if len(children) == 1 or any(_plain(c.name).startswith(n) for n in names)]
        # Links may lead to one folder many times over.
        level = list({folder.resolve(): folder for folder in below if _is_inside(start, folder)}.values())
    seen = ", ".join(sorted(path.name for path in start.iterdir() if not path.name.startswith("."))[:12]) or "nothing"
    raise SourceError(
        f"expected {expected} in {start} (or in a folder {' / '.join(spellings)} below it), found: {seen}; "
        "point the root at the unpacked dataset"
    )


def child(folder: Path, *names: str) -> Path | None:
    """The entry of ``folder`` with one of these names, first name first; exact spelling before other case."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    if folder.is_dir():
        by_name = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}
        for name in names:
            if name.lower() in by_name:
                return by_name[name.lower()]
    return None


def descend(folder: Path, *names: str) -> Path | None:
    """The entry reached through ``names`` one below the other, case ignored."""
    found: Path | None = folder
    for name in names:
        found = child(found, name) if found is not None else None
    return found


def choose_splits(available: Sequence[str], split: str | None, where: Path) -> tuple[str, ...]:
    """The splits to read: all available ones, or the one named ``split``.

    ``split`` may be the source's own name ("training") or the generic one ("train"). Raises ``SourceError``
    when it is not there, or nothing is.
    """
    if not available:
        raise SourceError(f"expected at least one complete split in {where}, found none; unpack the dataset again")
    if split is None:
        return tuple(available)
    wanted = _GENERIC_SPLITS.get(split.lower(), split.lower())
    chosen = tuple(name for name in available if _GENERIC_SPLITS.get(name, name) == wanted)
    if not chosen:
        raise SourceError(f"expected split {split!r} in {where}, found {', '.join(available)}; choose one")
    return chosen


def split_in_name(name: str) -> str:
    """The split that a file's name tells last (``birds_train``, ``person_keypoints_val2017``), else "all"."""
    found = _SPLIT_IN_NAME.findall(name.replace("_", " "))
    return found[-1].lower() if found else "all"


def subset_folders(root: Path, split: str, files: Sequence[Path]) -> list[Path]:
    """Folders in ``images`` that hold the images of a split alone: ``images/train``, ``images/train2017``.

    Tools that write one annotation file for each subset put its images into ``images/<subset>``, where the file's name
    ends with the subset's (``person_keypoints_default.json``): so where ``files`` of the split are one.
    """
    images = child(root, "images")
    if images is None or not images.is_dir():
        return []
    spellings = {split, f"{split}2017", f"{split}2014", *(("valid", "validation") if split == "val" else ())}
    end = f"_{files[0].stem.lower()}" if len(files) == 1 else ""
    return [
        path for path in _folders(images) if path.name.lower() in spellings or end.endswith(f"_{path.name.lower()}")
    ]


def stems(folder: Path, extensions: frozenset[str] = IMAGE_EXTENSIONS) -> dict[str, str]:
    """File name of every stem in ``folder``: hidden files (AppleDouble ``._x.jpg``) and other kinds left out.

    Where one stem has several files the alphabetically first name wins (.JPEG, .JPG, .jpeg, .jpg before .png).
    """
    found: dict[str, str] = {}
    with os.scandir(folder) as items:
        for item in items:
            stem, dot, extension = item.name.rpartition(".")
            if item.name.startswith(".") or f"{dot}{extension}".lower() not in extensions or not _is_file(item):
                continue
            found[stem] = min(item.name, found.get(stem, item.name))
    return found


def _is_file(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_file()
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        return False  # a link that leads to itself


def _is_there(path: Path) -> bool:
    """Whether this is a file; ``Path.is_file`` raises for names that no file system holds."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        return False


def has_files(folder: Path, extensions: frozenset[str]) -> bool:
    """Whether ``stems`` would find anything, without listing the folder to its end."""
    with os.scandir(folder) as items:
        return any(Path(item.name).suffix.lower() in extensions and not item.name.startswith(".") for item in items)


def _is_inside(root: Path, path: Path) -> bool:
    try:
        if path.is_symlink():
            return path.resolve().is_relative_to(root)
    except OSError:  # the file system cannot hold such a name; opening it will say so
        pass
    return _folder_is_inside(root, path.parent)


@lru_cache(maxsize=4096)
def _folder_is_inside(root: Path, folder: Path) -> bool:
    """Asked again for every file of a folder; resolving its links takes longer than opening the file."""
    return folder.resolve().is_relative_to(root)


def inside(root: Path, relative: str, links: Sequence[Path] = ()) -> Path:
    """``root / relative`` once it is certain to stay in ``root`` (a resolved folder), or in one of ``links`` (resolved
    folders), where the caller's settings let links lead to.

    Raises ``SkippedImage("path_outside_root")`` for absolute paths, ``..``, and links that lead outside, and
    ``SkippedImage("undecodable_name")`` for names that are no text and could not be written to a table.
    """
    path = PurePosixPath(relative)
    if not relative or "\0" in relative or path.is_absolute() or ".." in path.parts:
        raise SkippedImage("path_outside_root", repr(relative))
    if not relative.isascii() and any("\ud800" <= character <= "\udfff" for character in relative):
        raise SkippedImage("undecodable_name", ascii(relative))
    full = root / path
    if not any(_is_inside(place, full) for place in (root, *links)):
        raise SkippedImage("path_outside_root", f"{relative!r} is a link to {full.resolve()}")
    return full


def all_inside(source: Source, files: Iterable[str]) -> bool:
    """Whether all paths stay in the source's root; counts the first that does not on the source."""
    try:
        for file in files:
            inside(source.root, file, source.links)
    except SkippedImage as skipped:
        source.skip(skipped.reason, skipped.detail)
        return False
    return True


class ImageFinder:
    """Finds image files under several folders by the name an annotation file gives them.

    Tried in each folder: ``<name>``, and unless ``exact_folders`` also ``<base name>`` and ``<wnid>/<base name>``
    where the wnid is the part of the base name before "_" (ImageNet); always by stem, whatever the extension. A file
    that is called exactly ``name``, which may end with anything or start with a dot, goes before one of its stem
    that has another of the extensions. A name that is not there is tried as a URL has it ("my%20kite.jpg"). A whole
    path that begins with the root is read from there.
    """

    def __init__(
        self, root: Path, folders: Sequence[Path], exact_folders: bool = False, links: Sequence[Path] = ()
    ) -> None:
        self.root = root
        self.links = links
        self.folders = tuple(folders)
        self._exact_folders = exact_folders
        self._listings: dict[tuple[str, frozenset[str]], dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """POSIX path from the root, or None. Raises ``SkippedImage`` for a name that leaves the folder."""
        path = PurePosixPath(name)
        if path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        absolute = path.is_absolute() or PureWindowsPath(str(path)).is_absolute()
        if not name or "\0" in name or absolute or ".." in path.parts:
            raise SkippedImage("path_outside_root", repr(name))
        tried = {path.parent: None}
        if not self._exact_folders:
            tried |= {PurePosixPath(): None, PurePosixPath(path.stem.partition("_")[0]): None}
        places = [folder / below for folder in self.folders for below in tried]
        usual = path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".")
        by_stem = (self._listing(place).get(path.stem) for place in places)
        exact = (path.name if _is_there(place / path.name) else None for place in places)
        further = (self._listing(place, _FURTHER_EXTENSIONS).get(path.stem) for place in places)
        for listed in (by_stem, exact, further) if usual else (exact, by_stem, further):
            for place, found in zip(places, listed, strict=True):
                if found is not None:
                    relative = (place / found).relative_to(self.root).as_posix()
                    inside(self.root, relative, self.links)
                    return relative
        plain = unquote(name, errors="surrogateescape")
        return self.find(plain) if plain != name else None

    def _listing(self, folder: Path, extensions: frozenset[str] = IMAGE_EXTENSIONS) -> dict[str, str]:
        key = str(folder), extensions
        if key not in self._listings:
            try:
                self._listings[key] = stems(folder, extensions)
            except OSError as error:
                if error.errno not in _IMPOSSIBLE:
                    raise
                self._listings[key] = {}
        return self._listings[key]

    def all_stems(self) -> set[str]:
        """Stems of all images directly in the folders or one level below."""
        found: set[str] = set()
        for folder in self.folders:
            for place in (folder, *_folders(folder)):
                found.update(self._listing(place))
        return found
