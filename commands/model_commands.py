"""Commands on models: convert a release, describe a point, localize a description."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from commands.console import app, exit_codes, needs_extra
from talking_points.config import ConfigError
from talking_points.models.model_folders import check_model

if TYPE_CHECKING:
    from PIL.Image import Image

ImageFile = Annotated[Path, typer.Argument(help="an image file", exists=True, dir_okay=False)]
FIGURES = (".png", ".jpg", ".jpeg", ".webp")
Figure = Annotated[Path | None, typer.Option(help="also draw the point and the text into this file")]


@app.command("convert-omg-llava")
def convert_omg_llava(
    sources: Annotated[list[Path], typer.Argument(help="files and folders of the release; the language model first")],
    output: Annotated[Path, typer.Option(help="folder for the converted model")],
    lora: Annotated[str, typer.Option(help="merge: into the weights; continue: keep as adapters")] = "merge",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32; vision stays in float32")] = "bfloat16",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check all keys, print sizes and memory")] = False,
) -> None:
    """Convert the official OMG-LLaVA files into one folder that from_pretrained reads."""
    with exit_codes():
        modes: dict[str, Literal["merge", "continue"]] = {"merge": "merge", "continue": "continue"}
        dtypes = ("bfloat16", "float16", "float32")
        if lora not in modes or dtype not in dtypes:
            raise ConfigError(
                f"expected --lora {'|'.join(modes)} and --dtype {'|'.join(dtypes)}, found {lora}, {dtype}"
            )
        with needs_extra("train"):
            import torch

            from talking_points.models.omg_llava.conversion import convert_release, plan_release
            from talking_points.models.omg_llava.memory import memory_summary, on_meta
            from talking_points.models.omg_llava.modeling import OmgLlavaModel
        if dry_run:
            plan = plan_release(sources, lora=modes[lora])
            print(memory_summary(on_meta(OmgLlavaModel, plan.config)))
            return
        report = convert_release(sources, output, lora=modes[lora], dtype=getattr(torch, dtype))
    print(
        f"{report.output}: {report.parameters / 1e9:.3f} billion parameters in {len(report.files)} files, "
        f"{report.merged_adapters} adapters merged, {report.kept_adapters} kept; "
        f"tokenizer {'written' if report.tokenizer else 'not among the sources'}; checksums hold"
    )


@app.command()
def describe(
    image: ImageFile,
    x: Annotated[float, typer.Argument(help="pixels, to the right")],
    y: Annotated[float, typer.Argument(help="pixels, down")],
    model: Annotated[str, typer.Option(help="folder or repository of a Point Descriptor")],
    figure: Figure = None,
) -> None:
    """Describe one point of an image."""
    with exit_codes():
        # What can be wrong is looked at before the seconds that torch takes to import.
        rgb = _open(image, x, y)
        _check_figure(figure)
        check_model(model, "descriptor")
        with needs_extra("train"):
            from talking_points.models.descriptor import PointDescriptor
            from talking_points.models.figure import draw_point_figure
            from talking_points.models.loading_bars import hide_loading_bars
            from talking_points.processes import process_state
        hide_loading_bars()
        descriptor = PointDescriptor.from_pretrained(model).to(process_state().device)
        text = descriptor.describe([rgb], [(x, y)])[0]
        print(text)
        if figure:
            _save(draw_point_figure(rgb, text, keypoint=(x, y)), figure)


@app.command()
def localize(
    image: ImageFile,
    text: Annotated[str, typer.Argument(help="description of a point")],
    model: Annotated[str, typer.Option(help="folder or repository of a Point Localizer")],
    figure: Figure = None,
) -> None:
    """Find the point that a text describes; prints x and y in pixels."""
    with exit_codes():
        rgb = _open(image)
        _check_figure(figure)
        check_model(model, "localizer")
        with needs_extra("train"):
            from talking_points.models.figure import draw_point_figure
            from talking_points.models.loading_bars import hide_loading_bars
            from talking_points.models.localizer import PointLocalizer
            from talking_points.processes import process_state
        hide_loading_bars()
        localizer = PointLocalizer.from_pretrained(model).to(process_state().device)
        x, y = (float(value) for value in localizer.localize([rgb], [text])[0])
        print(f"{x:.1f} {y:.1f}")
        if figure:
            _save(draw_point_figure(rgb, text, localized=(x, y)), figure)


def _check_figure(figure: Path | None) -> None:
    """Refuse a file that the figure could not be written to. Raises ``ConfigError``."""
    if figure is None:
        return
    if figure.suffix.lower() not in FIGURES:
        raise ConfigError(f"--figure: expected a file name that ends in {', '.join(FIGURES)}, found {figure}")
    if not figure.absolute().parent.is_dir():
        raise ConfigError(f"--figure: expected a folder at {figure.parent}, found none; make it first")


def _save(drawing: Image, figure: Path) -> None:
    try:
        drawing.save(figure)
    except OSError as error:
        raise ConfigError(f"cannot write the figure {figure}: {error}; the answer above is complete") from error


def _open(path: Path, x: float = 0.0, y: float = 0.0):  # type: ignore[no-untyped-def]  # PIL only where it is needed
    """A user's own image as every viewer shows it; points are in pixels of the displayed image."""
    from talking_points.config import ConfigError
    from talking_points.image_files import read_rgb

    rgb = read_rgb(path, orientation="displayed")
    if not (-0.5 <= x < rgb.width - 0.5 and -0.5 <= y < rgb.height - 0.5):
        raise ConfigError(f"the point ({x:g}, {y:g}) is not in {path}, which has {rgb.width}x{rgb.height} pixels")
    return rgb
