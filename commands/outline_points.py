"""``outline-points``: the descriptions of a dataset outlined by a segmenter, and what points the outlines give."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from commands.console import app, exit_codes, needs_extra
from commands.model_commands import Device
from commands.segment import Coordinates, check_segmenter
from talking_points.models.model_folders import check_model
from talking_points.terminal import show_json, tell


@app.command("outline-points")
def outline_points(
    dataset: Annotated[str, typer.Argument(help="folder of a dataset of points, or org/name on the Hub")],
    segmenter: Annotated[str, typer.Option(help="folder or repository of a segmenter")],
    localizer: Annotated[str | None, typer.Option(help="folder or repository of a Point Localizer")] = None,
    split: Annotated[str, typer.Option(help="of the dataset")] = "test",
    limit: Annotated[int | None, typer.Option(help="at most so many points", min=1)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="points answered at a time")] = 32,
    coordinates: Coordinates = "unit",
    device: Device = None,
) -> None:
    """Score the centre and the innermost point of a segmenter's outlines against a localizer, by mPCK."""
    with exit_codes():
        check_segmenter(segmenter, "--segmenter", coordinates)
        if localizer is not None:
            check_model(localizer, "localizer", "--localizer")
        tell(f"outline-points: loading {segmenter}")
        with needs_extra("train"):
            from commands.batch import choose_device
            from talking_points.evaluation.outline_places import find_places, score_places
            from talking_points.examples.points import load_points
            from talking_points.models.loading_bars import hide_loading_bars
            from talking_points.models.localizer import PointLocalizer
            from talking_points.models.segmenting import open_segmenter, refuse_coordinates
            from talking_points.step_progress import follow
        hide_loading_bars()
        points = load_points(dataset, split, limit=limit)
        place = choose_device(device)
        model = open_segmenter(segmenter, "--segmenter", coordinates=coordinates, device=place)  # type: ignore[arg-type]
        refuse_coordinates(segmenter, model, coordinates, "--coordinates")  # type: ignore[arg-type]
        finder = PointLocalizer.from_pretrained(localizer).to(place).eval() if localizer else None
        outlines: list[Any] = []
        found: list[Any] = []
        with follow("outline-points", len(points), unit="point") as progress:
            for start in range(0, len(points), batch_size):
                batch = points.examples[start : start + batch_size]
                images = dict(points.images({example.image for example in batch}))
                shown, texts = [images[example.image] for example in batch], [example.text for example in batch]
                outlines += model.segment(shown, texts)
                if finder is not None:
                    found += finder.localize(shown, texts).tolist()
                progress.advance(len(batch))
        sizes = [example.size for example in points.examples]
        places = find_places(outlines, sizes)
        if finder is not None:
            import numpy as np

            places["localizer"] = np.array(found)
        scores = score_places(places, points.keypoints, sizes)
        unreadable = sum(not region.polygons for region in outlines)
    show_json({"points": len(points), "without_outline": unreadable, "scores": scores})
