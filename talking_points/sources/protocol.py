"""What every source offers: a deterministic listing without pixels, and one record per listed image.

The listing (``entries``) is cheap and sorted by image id, so that it can be cut into shards; reading
(``read``) decodes one image and its annotations and needs nothing but its entry, so that shards can be
read anywhere and in any order. Iterating a source does both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talking_points.errors import InputError
from talking_points.records import ImageRecord


class SourceError(InputError):
    """The dataset as a whole cannot be read: says what was expected, what was found, what to do."""


class NothingListedError(SourceError):
    """Not one image is listed. ``skipped`` maps each source to its root and to what was left out, by reason."""

    def __init__(self, skipped: Mapping[str, tuple[str | Path, Mapping[str, int]]]) -> None:
        found = "; ".join(
            f"{name} at {root}: {reasons_in_words(reasons) or 'no annotated image'}"
            for name, (root, reasons) in skipped.items()
        )
        super().__init__(
            f"expected images with annotations, found none that can be used: {found}. Correct the source's root, "
            "split or files; docs/own_data.md says what they may look like"
        )


def reasons_in_words(reasons: Mapping[str, int]) -> str:
    """Counted reasons, the most frequent first: ``missing_image: 4, crowd: 2``."""
    return ", ".join(f"{reason}: {count}" for reason, count in Counter(reasons).most_common())


class SkippedImage(Exception):
    """This image gives no record. ``reason`` is a short stable word for counting, ``detail`` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class SourceEntry:
    """One listed image: JSON-serialisable, without pixels.

    ``image_path`` and ``files`` (every file that determines the record, the image first) are POSIX paths
    relative to the source's root; none may leave it. ``annotation`` is the source's own raw annotation of
    this image where it comes from a joint file.
    """

    image_id: str
    image_path: str
    split: str
    files: tuple[str, ...]
    annotation: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """Base of all sources: subclasses give ``name``, ``entries`` and ``read``.

    ``skipped`` counts, by reason, the images, objects and parts that were listed or read but not yielded.
    ``skipped_details`` keeps the first few details of each reason for reports.
    """

    name: str
    links: tuple[Path, ...] = ()
    """Resolved folders outside the root that links in it may lead to."""

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        self.root = Path(root)
        self.split = split
        self.skipped: Counter[str] = Counter()
        self.skipped_details: dict[str, list[str]] = {}

    @abstractmethod
    def entries(self) -> Iterator[SourceEntry]:
        """List the images in the order of their ids. Raises ``SourceError`` for a root that cannot be read."""

    @abstractmethod
    def read(self, entry: SourceEntry) -> ImageRecord:
        """Decode one listed image. Raises ``SkippedImage`` when it gives no record."""

    def skip(self, reason: str, detail: str = "", count: int = 1) -> None:
        """Count something left out."""
        self.skipped[reason] += count
        details = self.skipped_details.setdefault(reason, [])
        if detail and len(details) < 5:
            details.append(detail.encode(errors="backslashreplace").decode())  # file names need not be text

    def __iter__(self) -> Iterator[ImageRecord]:
        self.skipped.clear()
        self.skipped_details.clear()
        for entry in self.entries():
            try:
                record = self.read(entry)
            except SkippedImage as skipped:
                self.skip(skipped.reason, f"{entry.image_path}: {skipped.detail}")
                continue
            yield record
