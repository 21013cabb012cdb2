"""An image with a region drawn over it: its outlines, a translucent filling, its box."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw

from talking_points.grounding.outlines import Outlines
from talking_points.models.figure import scale_to_page, write_below
from talking_points.models.omg_llava.image_processing import ImageInput, to_rgb

COLOUR = (230, 60, 40)
_LIGHT, _BOX = (255, 255, 255), (40, 110, 220)
_FILLING = 0.35


def draw_region_figure(
    image: ImageInput,
    outlines: Outlines,
    caption: str = "",
    *,
    box: Sequence[float] | None = None,
    point: Sequence[float] | None = None,
    width: int = 640,
) -> Image.Image:
    """The image, scaled to ``width`` pixels, with the region that ``outlines`` (unit coordinates) enclose.

    ``box`` [x, y, width, height] and ``point`` (x, y) are what was asked with, in pixels of ``image``.
    """
    seen, scale = scale_to_page(image, width)
    across, down = (scale * side for side in to_rgb(image).size)
    rings = [[[(x * across, y * down) for x, y in ring] for ring in polygon] for polygon in outlines.polygons]
    inside = Image.new("L", seen.size)
    for polygon in rings:
        own = Image.new("L", seen.size)
        for number, ring in enumerate(polygon):
            ImageDraw.Draw(own).polygon(ring, fill=0 if number else round(255 * _FILLING))
        inside = ImageChops.lighter(inside, own)
    seen.paste(Image.new("RGB", seen.size, COLOUR), mask=inside)
    pen = ImageDraw.Draw(seen)
    for ring in (ring for polygon in rings for ring in polygon):
        pen.line([*ring, ring[0]], fill=_LIGHT, width=5, joint="curve")
        pen.line([*ring, ring[0]], fill=COLOUR, width=3, joint="curve")
    if box is not None:
        x, y, w, h = (value * scale for value in box)
        pen.rectangle((x, y, x + w, y + h), outline=_BOX, width=3)
    if point is not None:
        # Integers are pixel centres, so half a pixel separates them from the scaled grid.
        x, y = ((value + 0.5) * scale for value in point)
        pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=_BOX, outline=_LIGHT, width=2)
    return write_below(seen, caption) if caption else seen
