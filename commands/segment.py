"""``segment``: the outline of what is asked for in an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.console import app, exit_codes, needs_extra
from commands.model_commands import Device, ImageFile, check_figure, open_image, save_figure
from commands.processes import end_at_once
from talking_points.config import ConfigError
from talking_points.escaping import in_one_line
from talking_points.models.model_folders import check_model, is_our_folder
from talking_points.terminal import show, show_json, tell

if TYPE_CHECKING:
    from talking_points.evaluation.region_answers import RegionAnswer

Numbers = tuple[float, float, float, float]
Coordinates = Annotated[
    str, typer.Option(help="what a foreign model writes: unit (shares of the size), thousand or pixels")
]
MASKS = (".png",)


@app.command()
def segment(
    image: ImageFile,
    expression: Annotated[str | None, typer.Argument(help='what to outline, for example "the dog\'s head"')] = None,
    *,
    model: Annotated[str, typer.Option(help="folder or repository of a segmenter")],
    point: Annotated[
        tuple[float, float] | None, typer.Option(help="what lies there, instead of words: x y, pixels", metavar="X Y")
    ] = None,
    box: Annotated[
        Numbers | None,
        typer.Option(help="what is in there, instead of words: x y width height, pixels", metavar="X Y W H"),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="also draw the outline into this file")] = None,
    mask: Annotated[Path | None, typer.Option(help="also write the mask, white on black, into this .png file")] = None,
    coordinates: Coordinates = "unit",
    device: Device = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one line of JSON, in pixels from the image's left and upper edge")
    ] = False,
) -> None:
    """Outline what a phrase, a point or a box refers to; prints the outlines as the model wrote them."""
    with exit_codes():
        shown = open_image(image, words=expression)
        check_figure(figure, image, mask)
        _check_mask(mask, image)
        _, kind = _asked(expression, point, box, shown.size)
        check_segmenter(model, "--model", coordinates)
        tell(f"segment: loading {model}")
        with needs_extra("train"):
            from commands.batch import choose_device
            from talking_points.evaluation.region_answers import RegionAnswer
            from talking_points.models.loading_bars import hide_loading_bars
            from talking_points.models.region_figure import draw_region_figure
            from talking_points.models.segmenting import open_segmenter, refuse_coordinates
        with end_at_once(said="stopped"):
            hide_loading_bars()
            segmenter = open_segmenter(model, coordinates=coordinates, device=choose_device(device))  # type: ignore[arg-type]
            refuse_coordinates(model, segmenter, coordinates, "--coordinates")  # type: ignore[arg-type]
            elements, _ = _asked(expression, point, box, shown.size, segmenter.scale(*shown.size))
            try:
                question = segmenter.question(kind, **elements)
            except ValueError as error:  # too long, or of a kind that it was taught no question of
                raise ConfigError(str(error)) from error
            text = segmenter.outline([shown], [question])[0]
        found = RegionAnswer.read(text, shown.size, segmenter.scale(*shown.size))
        if as_json:
            show_json(_describe(str(image), found, shown.size))
        if found.mask is None:
            raise ConfigError(
                f"the model wrote no outline that can be used ({found.error}): {text[:500]!a}; ask in other words, or "
                "train it longer"
            )
        if not as_json:
            show(_written(found, coordinates))
        if figure:
            caption = expression or ""
            save_figure(draw_region_figure(shown, found.outlines, caption, box=box, point=point), figure)
        if mask:
            _save_mask(found, mask)


def _asked(
    expression: str | None,
    point: tuple[float, float] | None,
    box: Numbers | None,
    size: tuple[int, int],
    scale: tuple[float, float] | None = None,
) -> tuple[dict[str, str], str]:
    """What the question names, as text for a model whose coordinates have this ``scale``, and its kind.

    Raises ``ConfigError`` for any but one.
    """
    from talking_points.grounding.grammar import UNIT, write_box, write_point
    from talking_points.grounding.outlines import box_to_unit, point_to_unit

    scale = scale or UNIT

    given = [name for name, value in (("words", expression), ("--point", point), ("--box", box)) if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"expected what to outline in words, --point X Y or --box X Y W H; found {' and '.join(given) or 'none'}"
        )
    width, height = size
    image = f"the image, which has {width}x{height} pixels"
    if point is not None:
        x, y = point
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise ConfigError(f"--point: ({x:g}, {y:g}) is not in {image}")
        return {"point": write_point(point_to_unit(x, y, width, height), scale=scale)}, "point_to_mask"
    if box is not None:
        x, y, w, h = box
        if not (w > 0 and h > 0 and x >= 0 and y >= 0 and x + w <= width and y + h <= height):
            raise ConfigError(f"--box: expected x y width height of a box with a size inside {image}; found {box}")
        return {"box": write_box(box_to_unit(box, width, height), scale=scale)}, "box_to_mask"
    words = in_one_line(expression or "")
    if not any(map(str.isalnum, words)):
        raise ConfigError('expected words for what to outline, for example "the dog\'s head", found none')
    return {"expression": words}, "text_to_mask"


def check_segmenter(model: str, setting: str, coordinates: str) -> None:
    """Refuse what is no segmenter, ours or a foreign one, as far as it shows before torch is imported."""
    if not model:
        raise ConfigError(f"{setting}: expected the folder or repository of a segmenter, found none")
    if coordinates not in ("unit", "thousand", "pixels"):
        raise ConfigError(f"--coordinates: expected unit, thousand or pixels, found {coordinates}")
    if not Path(model).is_dir() or is_our_folder(model):
        check_model(model, "segmenter", setting)


def _check_mask(mask: Path | None, image: Path) -> None:
    if mask is not None:
        if mask.suffix.lower() not in MASKS:
            raise ConfigError(f"--mask: expected a file name that ends in .png, found {mask}")
        check_figure(mask, image, option="--mask")


def _written(found: RegionAnswer, coordinates: str) -> str:
    """The answer in the grammar, on one line: as written where it is well formed, else what could be used of it."""
    from talking_points.grounding.grammar import write_outlines
    from talking_points.grounding.lattice import bare

    if found.error is None and coordinates == "unit":
        return " ".join(bare(found.text).split())
    return write_outlines(found.outlines, holes=any(len(polygon) > 1 for polygon in found.outlines.polygons))


def _describe(image: str, found: RegionAnswer, size: tuple[int, int]) -> dict[str, Any]:
    from talking_points.grounding.rasters import area

    width, height = size
    outlines = [
        [[[round(x * width, 2), round(y * height, 2)] for x, y in ring] for ring in polygon]
        for polygon in found.outlines.polygons
    ]
    return {
        "image": image,
        "answer": found.text,
        "outlines": outlines,
        "box": [round(value, 2) for value in found.box or ()],
        "area": 0 if found.mask is None else area(found.mask),
        "truncated": found.error == "unclosed",
        "error": found.error,
    }


def _save_mask(found: RegionAnswer, path: Path) -> None:
    import numpy as np
    from PIL import Image

    from talking_points.grounding.rasters import decode_mask

    assert found.mask is not None
    save_figure(Image.fromarray(decode_mask(found.mask).astype(np.uint8) * 255), path)
