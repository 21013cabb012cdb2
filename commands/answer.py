"""``answer``: where named keypoints of an object in an image are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.console import app, exit_codes, needs_extra
from commands.model_commands import Device, ImageFile, check_figure, open_image, save_figure
from commands.processes import end_at_once
from talking_points.config import ConfigError
from talking_points.models.model_folders import check_model
from talking_points.terminal import show, show_json, tell

if TYPE_CHECKING:
    from talking_points.models.capellm.conversation import Query
    from talking_points.sources.keypoint_sets import KeypointSet


@app.command()
def answer(
    image: ImageFile,
    name: Annotated[str | None, typer.Argument(help="what to find, for example 'left front paw'")] = None,
    *,
    model: Annotated[str, typer.Option(help="folder or repository of a Point Answerer")],
    description: Annotated[
        str | None, typer.Option(help="says more of it: on which part, near what; default: the name alone")
    ] = None,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(help="the object: x y width height, pixels; default: the whole image", metavar="X Y W H"),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            "--all",
            help="all keypoints of a set (quadruped_body), or of a category of the model's own",
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="also draw the points into this file")] = None,
    mode: Annotated[str, typer.Option(help="greedy, beam or mean")] = "greedy",
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one line of JSON")] = False,
) -> None:
    """Find named keypoints of the object in a box; prints x and y in pixels."""
    from talking_points.models.capellm.conversation import QueryError
    from talking_points.models.capellm.crops import BoxError, clip_box

    with exit_codes():
        shown = open_image(image, words=name)
        check_figure(figure, image)
        if mode not in ("greedy", "beam", "mean"):
            raise ConfigError(f"--mode: expected greedy, beam or mean, found {mode}")
        if not model:
            raise ConfigError("--model: expected the folder or repository of a Point Answerer, found none")
        keypoints = _set(every, name, Path(model))
        try:  # what is asked is checked first: loading torch alone takes seconds
            if box is not None:
                box = clip_box(box, *shown.size)
            queries = _queries(keypoints, name, description)
        except (BoxError, QueryError) as error:
            raise ConfigError(str(error)) from error
        check_model(model, "answerer")
        tell(f"answer: loading {model}")
        with needs_extra("train"):
            from commands.batch import choose_device
            from talking_points.models.answerer import PointAnswerer
            from talking_points.models.loading_bars import hide_loading_bars
            from talking_points.models.pose_figure import draw_pose_figure
        try:
            with end_at_once(said="stopped"):
                hide_loading_bars()
                answerer = PointAnswerer.from_pretrained(model).to(choose_device(device))
                found = answerer.answer_all(shown, box, queries, mode=mode)
        except QueryError as error:
            raise ConfigError(str(error)) from error
        rows = [
            {
                "name": query.name,
                "description": query.description,
                "x": round(float(x), 1),
                "y": round(float(y), 1),
                "confidence": round(float(sure), 4),
            }
            for query, (x, y), sure in zip(queries, found.points, found.confidence, strict=True)
        ]
        if as_json:
            show_json({"image": str(image), "box": list(box) if box else None, "points": rows})
        else:
            for row in rows:
                show(f"{row['x']} {row['y']}" + (f" {row['name']}" if keypoints else ""))
        if figure:
            names = [query.name for query in queries]
            save_figure(draw_pose_figure(shown, names, found.points.tolist(), edges=_edges(keypoints), box=box), figure)


def _set(every: str | None, name: str | None, model: Path) -> KeypointSet | Sequence[str]:
    """What is asked for as a whole: a set of MP-100, or the names of a category that ``model`` was trained on.

    No names where a single keypoint is asked for. Raises ``ConfigError`` for both or neither, and an unknown set.
    """
    from talking_points.examples.pose_files import TrainedPoses
    from talking_points.sources.keypoint_sets import keypoint_sets

    if (every is None) == (name is None):
        raise ConfigError("expected either the name of a keypoint or --all with a set, found " +
                          ("neither" if name is None else "both"))  # fmt: skip
    if every is None:
        return ()
    sets = keypoint_sets()
    if every in sets:
        return sets[every]
    trained = TrainedPoses.read(model)
    own = trained.own if trained else {}
    if every not in own:
        learned = f", or a category that {model} was trained on: {', '.join(own)}" if own else ""
        raise ConfigError(f"--all: expected one of {', '.join(sorted(sets))}{learned}; found {every!r}")
    return own[every]


def _queries(keypoints: KeypointSet | Sequence[str], name: str | None, description: str | None) -> list[Query]:
    from talking_points.descriptions.keypoint_texts import rule_texts
    from talking_points.models.capellm.conversation import Query
    from talking_points.sources.keypoint_sets import KeypointSet

    if not keypoints:
        return [Query(name or "", description).clean()]
    if description is not None:
        raise ConfigError("--description says more of one keypoint: leave it out with --all")
    if isinstance(keypoints, KeypointSet):
        return [Query(one, text, keypoints.names) for one, text in rule_texts(keypoints).items()]
    return [Query(one, None, tuple(keypoints)).clean() for one in keypoints]


def _edges(keypoints: KeypointSet | Sequence[str]) -> list[tuple[int, int]]:
    """What is connected to what, and what follows what along a curve, as the facts of MP-100's sets say."""
    from talking_points.descriptions.keypoint_facts import facts_of
    from talking_points.sources.keypoint_sets import KeypointSet

    if not isinstance(keypoints, KeypointSet):
        return []
    edges = set()
    for name, fact in facts_of(keypoints).items():
        ends = [*fact.relations.get("connected", ()), *(c.behind for c in fact.curves if c.behind is not None)]
        for end in ends:
            pair = sorted((keypoints.names.index(name), keypoints.names.index(end)))
            edges.add((pair[0], pair[1]))
    return sorted(edges)
