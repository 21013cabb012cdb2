"""Commands on models: convert a release, describe a point, localize a description."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from commands.console import KEPT, app, exit_codes, needs_extra
from commands.processes import end_at_once
from talking_points.config import ConfigError
from talking_points.hub_names import unavailable
from talking_points.locks import refuse_links
from talking_points.models.capellm.release_files import adapted_model, check_parts
from talking_points.models.model_folders import check_model, explaining, loading
from talking_points.owners import refuse_closed
from talking_points.terminal import show, tell

if TYPE_CHECKING:
    from PIL.Image import Image

MANY = "many rows: a folder of images, a .jsonl or .parquet file, a dataset (folder or org/name)"
Output = Annotated[Path | None, typer.Option(help="of many rows: JSONL file of the answers; run again, it goes on")]
BatchSize = Annotated[int, typer.Option(min=1, help="of many rows: answered at a time")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:0, mps; default: a GPU where there is one")]
Images = Annotated[Path | None, typer.Option(help="folder of the images that a file of rows names; default: its own")]
Split = Annotated[str, typer.Option(help="of a dataset")]
ImageFile = Annotated[Path, typer.Argument(help="an image file")]
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
        if not dry_run:
            refuse_closed(output)
        tell(f"convert-omg-llava: reading {sources[0]}")
        with needs_extra("train"):
            import torch

            from talking_points.models.omg_llava.conversion import convert_release, plan_release
            from talking_points.models.omg_llava.memory import memory_summary, on_meta
            from talking_points.models.omg_llava.modeling import OmgLlavaModel
        if dry_run:
            with loading(sources[0], "OMG-LLaVA release"):
                plan = plan_release(sources, lora=modes[lora])
            show(memory_summary(on_meta(OmgLlavaModel, plan.config)))
            return
        with loading(sources[0], "OMG-LLaVA release"):
            report = convert_release(sources, output, lora=modes[lora], dtype=getattr(torch, dtype))
    show(
        f"{report.output}: {report.parameters / 1e9:.3f} billion parameters in {len(report.files)} files, "
        f"{report.merged_adapters} adapters merged, {report.kept_adapters} kept; "
        f"tokenizer {'written' if report.tokenizer else 'not among the sources'}; checksums hold"
    )


@app.command("convert-capellm")
def convert_capellm(
    release: Annotated[Path, typer.Argument(help="folder of the official checkpoint, with its three files of weights")],
    language_model: Annotated[str, typer.Argument(help="folder or repository of the model that its adapters are for")],
    output: Annotated[Path, typer.Option(help="folder for the Point Answerer")],
) -> None:
    """Convert an official CapeLLM checkpoint and its language model into one Point Answerer."""
    with exit_codes():
        refuse_closed(output)
        if output.is_file() or (output.is_dir() and any(output.iterdir())):
            raise ConfigError(f"expected a new folder as --output, found {output} in use: choose another or remove it")
        part = output.with_name(f"{output.name}.part")  # so that a conversion which was interrupted is no model
        refuse_links(part)
        check_parts(release)
        reason = None if Path(language_model).exists() else unavailable(language_model, "model")
        if reason:
            raise ConfigError(f"expected the language model in a folder or on the Hub; {language_model}: {reason}")
        tell(f"convert-capellm: reading {release}")
        # Adapters fit any model of these sizes, and give wrong answers on all but theirs.
        if named := adapted_model(release):
            tell(f"convert-capellm: its adapters are for {named}, and are put on {language_model}")
        with needs_extra("train"):
            from talking_points.hub_client import bounded_hub
            from talking_points.models.capellm.conversion import convert_release

            bounded_hub()
        with explaining(release, "CapeLLM release"):
            model = convert_release(release, language_model)
        shutil.rmtree(part, ignore_errors=True)
        model.save_pretrained(part)
        part.replace(output)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    show(f"{output}: {parameters / 1e9:.3f} billion parameters, adapters of rank {model.config.lora_rank} kept")


def pixels(word: str) -> float:
    """A coordinate as it is typed. Raises ``typer.BadParameter``."""
    try:
        return float(word)
    except ValueError:
        raise typer.BadParameter(
            f"expected a number of pixels, found {word!r}: write IMAGE X Y, such as photo.jpg 120 45.5"
        ) from None


@app.command()
def describe(
    source: Annotated[str, typer.Argument(metavar="IMAGE|ROWS", help=f"an image file, or {MANY}")],
    x: Annotated[
        float | None,
        typer.Argument(
            parser=pixels, metavar="X", help="pixels, to the right; of an image, or of all images of a folder"
        ),
    ] = None,
    y: Annotated[float | None, typer.Argument(parser=pixels, metavar="Y", help="pixels, down")] = None,
    *,
    model: Annotated[str, typer.Option(help="folder or repository of a Point Descriptor")],
    figure: Figure = None,
    output: Output = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    images: Images = None,
    split: Split = "test",
) -> None:
    """Describe one point of an image, or the points of many rows."""
    with exit_codes(KEPT):
        from commands import batch

        if (x is None) != (y is None):
            raise ConfigError("expected a point as X and Y, found one number")
        point = None if x is None or y is None else (x, y)
        if batch.is_many(source):
            _no_figure(figure)
            batch.answer_many(
                "describe", source, point, model,
                output=output, batch_size=batch_size, device=device, images=images, split=split,
            )  # fmt: skip
            return
    with exit_codes():
        # What can be wrong is looked at before the seconds that torch takes to import.
        _no_output(output, source)
        refuse_other_rows(source)
        if point is None:
            raise ConfigError(f"expected the point to describe behind {source}, found none: X and Y in pixels")
        rgb = open_image(Path(source), *point)
        check_figure(figure, Path(source))
        check_model(model, "descriptor")
        tell(f"describe: loading {model}")
        with needs_extra("train"):
            from talking_points.models.descriptor import PointDescriptor
            from talking_points.models.figure import draw_point_figure
            from talking_points.models.loading_bars import hide_loading_bars
        with end_at_once(said="stopped"):
            hide_loading_bars()
            descriptor = PointDescriptor.from_pretrained(model).to(batch.choose_device(device))
            text = descriptor.describe([rgb], [point])[0]
        show(text)
        if figure:
            save_figure(draw_point_figure(rgb, text, keypoint=point), figure)


@app.command()
def localize(
    source: Annotated[str, typer.Argument(metavar="IMAGE|ROWS", help=f"an image file, or {MANY}")],
    text: Annotated[
        str | None, typer.Argument(help="description of a point; of an image, or of all of a folder")
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="folder or repository of a Point Localizer")],
    figure: Figure = None,
    output: Output = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    images: Images = None,
    split: Split = "test",
) -> None:
    """Find the point that a text describes, or the points of many rows; prints x and y in pixels."""
    with exit_codes(KEPT):
        from commands import batch

        if batch.is_many(source):
            _no_figure(figure)
            batch.answer_many(
                "localize", source, text, model,
                output=output, batch_size=batch_size, device=device, images=images, split=split,
            )  # fmt: skip
            return
    with exit_codes():
        _no_output(output, source)
        refuse_other_rows(source)
        if text is None or not text.strip():
            raise ConfigError(f"expected the text to find in {source} behind it, found none")
        rgb = open_image(Path(source), words=text)
        check_figure(figure, Path(source))
        check_model(model, "localizer")
        tell(f"localize: loading {model}")
        with needs_extra("train"):
            from talking_points.models.figure import draw_point_figure
            from talking_points.models.loading_bars import hide_loading_bars
            from talking_points.models.localizer import PointLocalizer
        with end_at_once(said="stopped"):
            hide_loading_bars()
            localizer = PointLocalizer.from_pretrained(model).to(batch.choose_device(device))
            x, y = (float(value) for value in localizer.localize([rgb], [text])[0])
        show(f"{x:.1f} {y:.1f}")
        if figure:
            save_figure(draw_point_figure(rgb, text, localized=(x, y)), figure)


def _no_figure(figure: Path | None) -> None:
    if figure is not None:
        raise ConfigError(f"--figure draws one image: leave it out for many rows, or name the image; found {figure}")


def _no_output(output: Path | None, source: str) -> None:
    if output is not None:
        raise ConfigError(
            f"--output keeps the answers to many rows: expected a folder of images, a file of rows or a dataset, found "
            f"{source}; a single answer is printed"
        )


def refuse_other_rows(source: str) -> None:
    """Refuse a table that is neither JSONL nor Parquet, which would be missed as an image. Raises ``ConfigError``."""
    if Path(source).suffix.lower() in (".json", ".csv", ".tsv", ".txt", ".xlsx"):
        raise ConfigError(
            f"expected an image, or rows in a file that ends in .jsonl (one JSON object in a line) or .parquet; found "
            f"{source}: write it as one of these"
        )


def check_figure(figure: Path | None, *others: Path | None, option: str = "--figure") -> None:
    """Refuse a file that the figure could not be written to, or in place of ``others``. Raises ``ConfigError``."""
    if figure is None:
        return
    for other in others:
        if other is not None and figure.resolve() == other.resolve():
            raise ConfigError(f"{option}: expected a file of its own, found {figure}, which it would replace")
    if figure.suffix.lower() not in FIGURES:
        raise ConfigError(f"{option}: expected a file name that ends in {', '.join(FIGURES)}, found {figure}")
    if not figure.absolute().parent.is_dir():
        raise ConfigError(f"{option}: expected a folder at {figure.parent}, found none; make it first")
    refuse_closed(figure)


def save_figure(drawing: Image, figure: Path) -> None:
    try:
        drawing.save(figure)
    except OSError as error:
        raise ConfigError(f"cannot write the figure {figure}: {error}; the answer above is complete") from error


def open_image(path: Path, x: float = 0.0, y: float = 0.0, words: str | None = None):  # type: ignore[no-untyped-def]  # PIL only where it is needed
    """A user's own image as every viewer shows it; points are in pixels of the displayed image.

    Raises ``ConfigError`` for a point outside, and where ``words``, which are asked about it, name the image instead.
    """
    from talking_points.config import ConfigError
    from talking_points.image_files import read_rgb

    # These say no, and raise nothing, for words that are too long for a name.
    if words and os.path.isfile(words) and not os.path.lexists(path):  # noqa: PTH113
        raise ConfigError(f"expected the image first, found {str(path)!r} before {words}: exchange the two")
    rgb = read_rgb(path, orientation="displayed")
    if not (-0.5 <= x < rgb.width - 0.5 and -0.5 <= y < rgb.height - 0.5):
        raise ConfigError(f"the point ({x:g}, {y:g}) is not in {path}, which has {rgb.width}x{rgb.height} pixels")
    return rgb
