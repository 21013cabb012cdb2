"""An image with named points in colours, and the skeleton that joins them."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from talking_points.models.figure import scale_to_page
from talking_points.models.omg_llava.image_processing import ImageInput

_INK, _PAPER, _EDGE = (25, 25, 25), (255, 255, 255), (245, 245, 245)


def draw_pose_figure(
    image: ImageInput,
    names: Sequence[str],
    points: Sequence[Sequence[float]],
    *,
    edges: Sequence[tuple[int, int]] = (),
    box: Sequence[float] | None = None,
    width: int = 640,
) -> Image.Image:
    """The image, scaled to ``width`` pixels, with every point in a colour of its own and a legend under it.

    ``points`` (N, 2) and ``box`` [x, y, width, height] are in pixels of ``image``; ``edges`` join points by index.
    Several points bear their numbers in the legend; those that hide each other bear them together.
    """
    seen, scale = scale_to_page(image, width)
    pen = ImageDraw.Draw(seen)
    # Integers are pixel centres, so half a pixel separates them from the scaled grid.
    places = [((x + 0.5) * scale, (y + 0.5) * scale) for x, y in points]
    if box is not None:
        x, y, w, h = (value * scale for value in box)
        pen.rectangle((x, y, x + w, y + h), outline=_EDGE, width=2)
    for one, other in edges:
        pen.line([places[one], places[other]], fill=_INK, width=5)
        pen.line([places[one], places[other]], fill=_EDGE, width=2)
    radius = max(5.0, width / 90)
    colours = point_colours(len(names))
    for (x, y), colour in zip(places, colours, strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=_EDGE, width=2)
    if len(places) > 1:
        _number(pen, places, radius, seen.size)
    return _with_legend(seen, names, colours)


def _number(
    pen: ImageDraw.ImageDraw, places: Sequence[tuple[float, float]], radius: float, size: tuple[int, int]
) -> None:
    """Write numbers from 1 beside the places, one text for those that lie on each other, inside the image."""
    together: dict[tuple[float, float], list[int]] = {}
    for number, place in enumerate(places, 1):
        near = next((one for one in together if math.dist(one, place) < radius), place)
        together.setdefault(near, []).append(number)
    font = ImageFont.load_default(size=round(1.7 * radius))
    for (x, y), numbers in together.items():
        text = number_ranges(numbers)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font, stroke_width=1)
        gap = radius + 2
        beside = x + gap if x + gap + right - left <= size[0] else max(0.0, x - gap - (right - left))
        above = min(max(0.0, y - (bottom - top) / 2), size[1] - (bottom - top))
        pen.text((beside - left, above - top), text, fill=_EDGE, font=font, stroke_width=1, stroke_fill=_INK)


def number_ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as text, three and more that follow each other by their ends: "1-3, 7, 8"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def point_colours(count: int) -> list[tuple[int, int, int]]:
    """Colours round the circle of hues, lighter and darker in turn."""
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb(index / max(1, count), 0.9, 0.95 if index % 2 == 0 else 0.65)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def _with_legend(
    seen: Image.Image, names: Sequence[str], colours: Sequence[tuple[int, int, int]], columns: int = 3
) -> Image.Image:
    names = [f"{number}  {name}" for number, name in enumerate(names, 1)] if len(names) > 1 else names
    size = max(12, seen.width // 48)
    font, line = ImageFont.load_default(size=size), round(size * 1.5)
    longest = max((font.getlength(name) for name in names), default=0.0) + 3 * size
    columns = max(1, min(columns, int(seen.width // longest))) if longest else 1
    rows = -(-len(names) // columns)
    canvas = Image.new("RGB", (seen.width, seen.height + line * rows + size), _PAPER)
    canvas.paste(seen, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x = size // 2 + (index // rows) * seen.width // columns
        y = seen.height + size // 2 + (index % rows) * line
        pen.ellipse((x, y + 2, x + size - 4, y + size - 2), fill=colour)
        pen.text((x + size, y), name, fill=_INK, font=font)
    return canvas
