"""What people are asked about: a seeded share of a dataset's rows, with images read when they are shown."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pyarrow as pa
from PIL import Image, ImageOps

from talking_points.dataset_files import dataset_file, dataset_names, image_bytes, open_parquet, read_groups
from talking_points.errors import InputError
from talking_points.image_files import read_header, read_rgb
from talking_points.records import LABELS, derive_seed, stable_id

Task = Literal["localize", "compare", "describe"]
"""localize: click what a description says. compare: which of two descriptions is better. describe: write one."""

_COLUMNS = ["id", "source", "description", "draft", "keypoint", "image_width", "image_height"]
_SHOWN_BY_BROWSERS = {"image/jpeg", "image/png", "image/webp"}


class AuditError(InputError):
    """The human check cannot run as asked: says what was expected, what was found, what to do."""


@dataclass(frozen=True)
class Item:
    """One question. ``texts`` maps a name to the description under it; ``keypoint`` is in pixels of the image."""

    id: str
    source: str
    texts: dict[str, str]
    keypoint: tuple[float, float]
    width: int
    height: int
    place: tuple[Path, int, int]
    """Parquet file, row group and row in it."""

    @property
    def content(self) -> str:
        """Digest of the texts: an answer counts for these words only, not for those of a later build."""
        return stable_id(*self.texts.items())

    def distance(self, x: float, y: float) -> float:
        """From (x, y) in pixels to the keypoint, in units of the image's width and height (paper, section 4)."""
        return math.hypot((x - self.keypoint[0]) / self.width, (y - self.keypoint[1]) / self.height)


@dataclass(frozen=True)
class Questions:
    """The items of one task in the order in which everybody gets them, and how many rows they were drawn from."""

    task: Task
    split: str
    seed: int
    rows: int
    items: tuple[Item, ...]

    def order(self, item: Item, person: str) -> list[str]:
        """Names of an item's texts in the blind order of one person."""
        names = list(item.texts)
        return names[::-1] if derive_seed(self.seed, item.id, person, "order") % 2 else names


def load_questions(
    output: Path,
    task: Task = "localize",
    *,
    share: float = 0.05,
    seed: int = 0,
    split: str = "test",
    against: Path | None = None,
) -> Questions:
    """Draw ``share`` of the rows of ``split`` from the dataset in ``output``, at least one.

    ``compare`` puts the draft beside the refined description, or the dataset's descriptions beside those of ``against``
    for the rows that both have. Raises ``AuditError`` for a folder without that split and for rows without pixels.
    """
    if not 0 < share <= 1:
        raise AuditError(f"expected a share in (0, 1], found {share}")
    items = list(_items(output, task, split))
    if against is not None:
        others = {item.id: item.texts["description"] for item in _items(against, "localize", "*")}
        items = [_join_texts(item, others[item.id]) for item in items if item.id in others]
    if not items:
        raise AuditError(
            f"expected rows of split '{split}' in {output / 'data'} (and in the dataset compared), found none"
        )
    chosen = sorted(items, key=lambda item: (derive_seed(seed, item.id, "audit"), item.id))
    chosen = chosen[: max(1, math.ceil(share * len(items)))]
    if not _has_image(chosen[0]):
        raise AuditError(
            f"the rows of {output} do not carry their images: put them back with 'talking-points rehydrate' first"
        )
    return Questions(task, split, seed, len(items), tuple(chosen))


_FEW = 8
"""Images that are read at a time."""


@lru_cache(maxsize=64)
def read_image(place: tuple[Path, int, int]) -> bytes:
    """The row's image as a browser must show it: in stored pixel order, whatever its orientation tag says."""
    data = _image_bytes(place)
    if data is None:
        raise AuditError(f"row {place[2]} of {place[0]} carries no pixels")
    header = read_header(data)
    if header.orientation == 1 and header.mode in ("RGB", "L", "P") and header.mime in _SHOWN_BY_BROWSERS:
        return data
    upright = io.BytesIO()
    read_rgb(data).save(upright, format="PNG")
    return upright.getvalue()


def draw_marks(item: Item, click: tuple[float, float] | None = None) -> Image.Image:
    """The image with its keypoint as a ring and a click as a cross, for reports."""
    from PIL import ImageDraw

    marked = ImageOps.contain(read_rgb(read_image(item.place)), (480, 480))
    scale = marked.width / item.width
    radius = 8
    draw = ImageDraw.Draw(marked)
    x, y = item.keypoint[0] * scale, item.keypoint[1] * scale
    for width, colour in ((5, "white"), (2, "#0072b2")):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
    if click is not None:
        x, y = click[0] * scale, click[1] * scale
        for width, colour in ((5, "white"), (2, "#d55e00")):
            draw.line((x - radius, y - radius, x + radius, y + radius), fill=colour, width=width)
            draw.line((x - radius, y + radius, x + radius, y - radius), fill=colour, width=width)
    return marked


def _items(output: Path, task: Task, split: str) -> Iterator[Item]:
    for name in dataset_names(output, f"data/{split}-*.parquet"):
        path = dataset_file(output, name)
        for group, table in enumerate(read_groups(path, _COLUMNS)):
            for number, row in enumerate(table.to_pylist()):
                yield Item(
                    id=row["id"],
                    source=LABELS[row["source"]],
                    texts=_texts(task, row["draft"], row["description"]),
                    keypoint=(row["keypoint"][0], row["keypoint"][1]),
                    width=row["image_width"],
                    height=row["image_height"],
                    place=(path, group, number),
                )


def _texts(task: Task, draft: str, description: str) -> dict[str, str]:
    if task == "describe":
        return {}
    return {"draft": draft, "description": description} if task == "compare" else {"description": description}


def _join_texts(item: Item, other: str) -> Item:
    return Item(**{**vars(item), "texts": {"this": item.texts["description"], "other": other}})


def _has_image(item: Item) -> bool:
    """Whether the row carries the source's own image, not a preview of it and not nothing."""
    data = _image_bytes(item.place)
    if data is None:
        return False
    header = read_header(data)
    return (header.width, header.height) == (item.width, item.height)


def _image_bytes(place: tuple[Path, int, int]) -> bytes | None:
    path, group, number = place
    with open_parquet(path, ("image",)) as file:
        # Of a group that holds many images, as few as possible are in memory.
        for batch in file.iter_batches(_FEW, row_groups=[group], columns=["image"]):
            if number < batch.num_rows:
                cells = pa.chunked_array([batch.column(0).slice(number, 1)])
                return next(image_bytes(cells))
            number -= batch.num_rows
    return None
