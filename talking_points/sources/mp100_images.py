"""Where MP-100's images lie: in the folders that the annotation files name, or as their 13 datasets were unpacked.

The files name an image by a folder and a file (``horse_body/123.jpg``), the folder below ``images`` or at the root. Who
has the datasets in folders of their own, or all images in one, has them taken from there: a folder serves a category
when it holds at least half of the category's images by name, and images of the listed sizes. Single files of equal name
prove nothing: COCO and AP-10K number theirs alike, and so do the frames of flies and locusts. Clothes are never looked
for so, as the three parts of DeepFashion2 have the same names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from talking_points.image_files import ImageFileError, read_header
from talking_points.sources.labels import load_labels
from talking_points.sources.layout import ImageFinder, child, inside
from talking_points.sources.protocol import SkippedImage

SHARE = 0.5
"""Of a category's images that a folder of another name must hold to be taken for theirs."""

_DEPTH, _LOOKED_AT = 5, 3

Reference = tuple[int, str, int | None, int | None]
"""Category, file name, width and height of an annotated image; sizes where the file gives them."""


class Mp100Finder(ImageFinder):
    """Finds images by the names of the annotation files; after ``adopt`` in folders of other names too."""

    def __init__(self, root: Path, links: Sequence[Path] = ()) -> None:
        images = child(root, "images")
        super().__init__(root, [root] if images is None else [images, root], exact_folders=True, links=links)
        self._adopted: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """POSIX path from the root, or None. Raises ``SkippedImage`` for a name that leaves the folder."""
        return super().find(name) or self._adopted.get(name)

    def adopt(self, references: Iterable[Reference]) -> None:
        """Look for images that are not where ``references`` say, in folders that hold most of their category's."""
        clothes = {item["id"] for item in load_labels("mp100")["categories"] if item["super_type"] == "clothes"}
        by_category: dict[int, dict[str, tuple[int | None, int | None]]] = defaultdict(dict)
        for category, name, width, height in references:
            if category not in clothes:
                by_category[category][name] = (width, height)
        lost = {
            category: [name for name in names if not self._is_found(name)] for category, names in by_category.items()
        }
        if not any(lost.values()):
            return
        folders = list(self._image_folders())
        for category, names in lost.items():
            stems = {PurePosixPath(name).stem for name in by_category[category]}
            shares = [(len(stems & self._listing(folder).keys()) / len(stems), folder) for folder in folders]
            share, best = max(shares, key=lambda one: one[0], default=(0.0, self.root))
            if share >= SHARE:
                self._take(best, {name: by_category[category][name] for name in names})

    def _take(self, folder: Path, names: dict[str, tuple[int | None, int | None]]) -> None:
        """Note where the files of ``names`` are in a folder, unless the first ones have other sizes than listed."""
        listing = self._listing(folder)
        there = {name: folder / listing[stem] for name in names if (stem := PurePosixPath(name).stem) in listing}
        if all(_has_size(path, names[name]) for name, path in list(there.items())[:_LOOKED_AT]):
            self._adopted |= {name: path.relative_to(self.root).as_posix() for name, path in there.items()}

    def _is_found(self, name: str) -> bool:
        try:
            return self.find(name) is not None
        except SkippedImage:
            return True  # a name that leaves the folder is told of where it is read

    def _image_folders(self) -> Iterator[Path]:
        """All visible folders below the root in order, each once, links that lead out of it left out."""
        waiting, seen = [(self.root, 0)], set()
        while waiting:
            folder, depth = waiting.pop()
            if (real := folder.resolve()) in seen:  # links to folders above would lead to them again and again
                continue
            seen.add(real)
            yield folder
            for below in sorted(folder.iterdir(), reverse=True) if depth < _DEPTH else ():
                if below.is_dir() and not below.name.startswith(".") and below.name != "__MACOSX":
                    try:
                        inside(self.root, below.relative_to(self.root).as_posix(), self.links)
                    except SkippedImage:
                        continue
                    waiting.append((below, depth + 1))


def _has_size(path: Path, listed: tuple[int | None, int | None]) -> bool:
    """Whether an image has the listed width and height, or none are listed; False for one that cannot be read."""
    if None in listed:
        return True
    try:
        found = read_header(path)
    except ImageFileError:
        return False
    return (found.width, found.height) == listed
