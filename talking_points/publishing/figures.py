"""Figures of a dataset, in one style: composition, examples, lengths, acceptance.

Colors are Okabe and Ito's, told apart with any color vision. A path ending in ``.png`` is written at 150 dpi, ``.svg``
and ``.pdf`` as vectors; several paths get the same figure. The same input gives the same bytes: no dates, no random
ids, fonts that ship with matplotlib.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from talking_points.plotting import plain_style, shorten

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

SOURCE_TITLES = {
    "pascal_part116": "PascalPart116",
    "ade20k_part234": "ADE20KPart234",
    "partimagenet": "PartImageNet",
    "coco_parts": "Own annotations",
    "added": "Source of another package",
}

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "talking-points",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}

_INK = "#222222"
_POINTS_PER_UNIT = 310  # of the sunburst: its radius is 4.3 inches
_SMALLEST_LABEL = 4.0
_SVG_DPI = 100
"""Of the photographs in it, which are about 400 pixels wide then. More takes longer to pack than all else to draw."""
_METADATA = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


@dataclass(frozen=True)
class Example:
    """One image of the example grid. ``pixels``: uint8 RGB (height, width, 3); ``point``: pixels."""

    pixels: NDArray[np.uint8]
    point: tuple[float, float]
    text: str


def composition_sunburst(counts: Mapping[str, Mapping[str, Mapping[str, int]]], *paths: str | Path) -> None:
    """Rings source -> object -> part, sized by points (paper Figure 6). ``counts``: ``Composition.counts``.

    Objects and parts are labeled where their names fit; the legend names the sources.
    """
    if not counts:
        raise ValueError("nothing to draw: the composition holds no points")
    with plain_style(STYLE):
        figure, axes = _figure(9, 9.4)
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(-1.02, 1.02)
        axes.set_ylim(-1.02, 1.02)
        total = sum(sum(parts.values()) for objects in counts.values() for parts in objects.values())
        angle = 90.0
        handles = []
        for number, (source, objects) in enumerate(counts.items()):
            size = sum(sum(parts.values()) for parts in objects.values())
            color = PALETTE[number % len(PALETTE)]
            title = SOURCE_TITLES.get(source, source)
            handles.append(_wedge(axes, angle, size / total, (0.26, 0.42), color))
            handles[-1].set_label(f"{title}: {size:,} points ({size / total:.0%})")
            for index, (name, parts) in enumerate(_largest_first({n: sum(p.values()) for n, p in objects.items()})):
                share = parts / total
                _wedge(axes, angle, share, (0.43, 0.71), _tint(color, 0.30 + 0.16 * (index % 2)), name)
                inner = angle
                for position, (part, count) in enumerate(_largest_first(objects[name])):
                    tint = _tint(color, 0.58 + 0.14 * (position % 2))
                    _wedge(axes, inner, count / total, (0.72, 1.0), tint, part)
                    inner -= 360 * count / total
                angle -= 360 * share
        axes.text(0, 0, f"{total:,}\npoints", ha="center", va="center", fontsize=14, color=_INK)
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
        _save(figure, *paths)


def example_grid(examples: Sequence[Example], *paths: str | Path, columns: int = 3) -> None:
    """Images with their point in red and the description below (paper Figure 2); of a long one, the beginning."""
    if not examples:
        raise ValueError("nothing to draw: expected at least one example")
    columns = min(columns, len(examples))
    rows = -(-len(examples) // columns)
    width, characters = 4.0, 58
    wrapped = [textwrap.wrap(shorten(example.text), characters) for example in examples]
    with plain_style(STYLE):
        heights = []
        for row in range(rows):
            lines = max(len(text) for text in wrapped[row * columns : (row + 1) * columns])
            heights += [3.0, 0.17 * lines + 0.25]
        figure = Figure(figsize=(width * columns, sum(heights)))
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            2 * rows,
            columns,
            height_ratios=heights,
            left=0.01,
            right=0.99,
            top=0.995,
            bottom=0.005,
            hspace=0,
            wspace=0.04,
        )
        for index, (example, text) in enumerate(zip(examples, wrapped, strict=True)):
            row, column = divmod(index, columns)
            image, caption = (figure.add_subplot(grid[2 * row + step, column]) for step in (0, 1))
            for axes in (image, caption):
                axes.set_axis_off()
            image.imshow(example.pixels)
            image.set_anchor("S")
            for color, line in (("white", 4.0), ("#E00000", 2.0)):
                image.plot(*example.point, "o", markersize=13, mfc="none", mec=color, mew=line)
            caption.text(0.02, 0.95, "\n".join(text), va="top", fontsize=8.5, color=_INK, transform=caption.transAxes)
        _save(figure, *paths)


def length_histogram(lengths: Sequence[int], *paths: str | Path) -> None:
    """How many words the descriptions have, given the number of each, with the median marked."""
    words = np.array(lengths)
    if not len(words):
        raise ValueError("nothing to draw: expected at least one text")
    with plain_style(STYLE):
        figure, axes = _figure(6, 3.4)
        step = max(1, int(np.ptp(words)) // 40)
        bins = [edge - 0.5 for edge in range(int(words.min()), int(words.max()) + 2 * step, step)]
        axes.hist(words, bins=bins, color=PALETTE[0], edgecolor="white")
        median = float(np.median(words))
        axes.axvline(median, color=PALETTE[5], linewidth=1.5)
        axes.annotate(
            f"median {median:g}", (median, 1), (4, -2), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            va="top", color=PALETTE[5],
        )  # fmt: skip
        axes.set_xlabel("words per description")
        axes.set_ylabel("descriptions")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _save(figure, *paths)


def acceptance_bars(counts: Mapping[str, int], *paths: str | Path) -> None:
    """Rows by outcome: "accepted" and every reason of rejection, the largest first, each with its number and share."""
    total = sum(counts.values())
    if not total:
        raise ValueError("nothing to draw: expected at least one row")
    with plain_style(STYLE):
        figure, axes = _figure(7, 0.9 + 0.38 * len(counts))
        names = sorted(counts, key=lambda name: (name != "accepted", -counts[name], name))
        values = [counts[name] for name in names]
        colors = [PALETTE[2] if name == "accepted" else PALETTE[5] for name in names]
        axes.barh(range(len(names)), values, color=colors, height=0.7)
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(values) * 1.18)
        axes.set_xlabel("rows")
        for position, value in enumerate(values):
            axes.annotate(
                f"{value:,} ({value / total:.1%})", (value, position), (4, 0), textcoords="offset points", va="center"
            )
        _save(figure, *paths)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Figure, *paths: str | Path) -> None:
    for file in map(Path, paths):
        if file.suffix not in _METADATA:
            raise ValueError(f"expected a file name ending in {', '.join(_METADATA)}, found '{file.name}'")
        file.parent.mkdir(parents=True, exist_ok=True)
        # Pillow's usual level takes four times as long, for a seventh of the bytes.
        packed: dict[str, Any] = {"pil_kwargs": {"compress_level": 1}} if file.suffix == ".png" else {}
        dpi = _SVG_DPI if file.suffix == ".svg" else 150
        figure.savefig(file, dpi=dpi, facecolor="white", metadata=_METADATA[file.suffix], **packed)


def _largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _tint(color: str, amount: float) -> tuple[float, float, float]:
    red, green, blue = (channel + (1 - channel) * amount for channel in to_rgb(color))
    return red, green, blue


def _wedge(axes: Axes, start: float, share: float, radii: tuple[float, float], color: Any, name: str = "") -> Wedge:
    """A ring segment clockwise from ``start`` degrees, its name along the radius if there is room for it."""
    inner, outer = radii
    extent, radius = 360 * share, (inner + outer) / 2
    middle = (start - extent / 2) % 360
    line = min(0.5, 0.1 + extent / 4)
    wedge = Wedge(
        (0, 0), outer, start - extent, start, width=outer - inner, facecolor=color, edgecolor="white", linewidth=line
    )
    axes.add_patch(wedge)
    height, length = np.deg2rad(extent) * radius * _POINTS_PER_UNIT, (outer - inner) * _POINTS_PER_UNIT
    size = min(9.0, 0.8 * height, length / (0.6 * max(len(name), 1)))
    if size >= _SMALLEST_LABEL:
        x, y = radius * np.cos(np.deg2rad(middle)), radius * np.sin(np.deg2rad(middle))
        rotation = middle + 180 if 90 < middle < 270 else middle
        axes.text(x, y, name, rotation=rotation, ha="center", va="center", fontsize=size, color=_INK)
    return wedge
