"""An image with its keypoint, its description and where the description was localized, after the paper's Figure 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from talking_points.models.omg_llava.image_processing import ImageInput, to_rgb

KEYPOINT_COLOUR = (220, 30, 30)
LOCALIZED_COLOUR = (20, 170, 60)
_INK, _PAPER, _OUTLINE = (25, 25, 25), (255, 255, 255), (255, 255, 255)
TALLEST = 4
"""Times its width that a figure may be high, whatever the image is."""


def draw_point_figure(
    image: ImageInput,
    description: str,
    *,
    keypoint: Sequence[float] | None = None,
    localized: Sequence[float] | None = None,
    width: int = 640,
) -> Image.Image:
    """The image, scaled to ``width`` pixels, with the description under it.

    ``keypoint`` (x, y), in pixels of ``image``, becomes a red star; ``localized``, a green dot; a line joins them
    when both are given.
    """
    scaled, scale = scale_to_page(image, width)
    pen = ImageDraw.Draw(scaled)
    radius = max(5.0, width / 60)
    # Integers are pixel centres, so half a pixel separates them from the scaled grid.
    marks = [
        None if point is None else ((point[0] + 0.5) * scale, (point[1] + 0.5) * scale)
        for point in (keypoint, localized)
    ]
    star, dot = marks
    if star is not None and dot is not None:
        pen.line([star, dot], fill=_OUTLINE, width=max(1, round(radius / 4)))
    if dot is not None:
        box = (dot[0] - radius * 0.7, dot[1] - radius * 0.7, dot[0] + radius * 0.7, dot[1] + radius * 0.7)
        pen.ellipse(box, fill=LOCALIZED_COLOUR, outline=_OUTLINE, width=2)
    if star is not None:
        pen.polygon(_star(star, radius), fill=KEYPOINT_COLOUR, outline=_OUTLINE)

    return write_below(scaled, description)


def scale_to_page(image: ImageInput, width: int) -> tuple[Image.Image, float]:
    """The image as a page ``width`` pixels wide, and its scale. One far taller than wide leaves white beside it."""
    seen = to_rgb(image)
    scale = min(width / seen.width, TALLEST * width / seen.height)
    size = max(1, round(seen.width * scale)), max(1, round(seen.height * scale))
    page = Image.new("RGB", (width, size[1]), _PAPER)
    page.paste(seen.resize(size, Image.Resampling.LANCZOS), (0, 0))
    return page, scale


def write_below(image: Image.Image, words: str) -> Image.Image:
    """The image on a page with words under it."""
    width, size = image.width, max(12, image.width // 40)
    font = ImageFont.load_default(size=size)
    margin = width // 40
    lines = _wrap(words, font, width - 2 * margin)
    line_height = math.ceil(size * 1.35)
    canvas = Image.new("RGB", (width, image.height + 2 * margin + line_height * len(lines)), _PAPER)
    canvas.paste(image, (0, 0))
    text = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        text.text((margin, image.height + margin + number * line_height), line, fill=_INK, font=font)
    return canvas


def _star(centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """The ten corners of a five-pointed star, one point up."""
    return [
        (
            centre[0] + (radius if corner % 2 == 0 else radius * 0.42) * math.sin(corner * math.pi / 5),
            centre[1] - (radius if corner % 2 == 0 else radius * 0.42) * math.cos(corner * math.pi / 5),
        )
        for corner in range(10)
    ]


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Text in lines of at most ``width`` pixels; a single longer word keeps a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
