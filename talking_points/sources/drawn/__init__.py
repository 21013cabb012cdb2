"""Drawn sample sources: annotated scenes in the true layouts of the datasets, for trying and testing.

``draw_sample`` writes any number of images for each of six sources. An image depends on the seed, its
source and its index alone: more images or more processes change none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2

from talking_points.locks import refuse_links
from talking_points.sources.drawn.scenes import HELD_OUT, VARIANTS
from talking_points.sources.drawn.writers import FOLDERS, MAX_IMAGES, JointFiles, encode_image, prepare_folders

__all__ = ["HELD_OUT", "MARKER", "VARIANTS", "draw_sample", "drawn_roots", "is_drawn"]

MARKER = "DRAWN.md"
"""File in the root of every drawn source: what is built from it must not be taken for the real dataset."""

_CHUNK = 8


def draw_sample(
    root: Path,
    images: int,
    seed: int = 0,
    *,
    variant: str = "standard",
    workers: int = 1,
    sources: Collection[str] = tuple(FOLDERS),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Draw ``images`` images for each of ``sources`` below ``root``; returns the root of each by its name.

    ``variant`` is "standard", "hard" (three to five things of one class and similar size per image) or "plain" (one
    or two things of few classes that fill the image, every class in one source only).
    ``workers`` processes draw; ``progress(done, total)`` is called after each image. Images of an earlier
    drawing in the same place are removed. Raises ValueError for a number of images below 0 or too large, fewer
    than one worker, an unknown variant or source, or a source's folder that holds anything but an earlier
    drawing; ``ConfigError`` for links in it.
    """
    if not 0 <= images <= MAX_IMAGES:
        raise ValueError(f"expected 0 to {MAX_IMAGES} images per source, found {images}")
    if variant not in VARIANTS:
        raise ValueError(f"expected a variant of {', '.join(VARIANTS)}; found {variant!r}")
    if workers < 1:
        raise ValueError(f"expected at least 1 worker, found {workers}")
    if unknown := set(sources) - set(FOLDERS):
        raise ValueError(f"expected sources of {', '.join(FOLDERS)}; found {', '.join(sorted(unknown))}")
    roots = {source: folder for source, folder in drawn_roots(root).items() if source in sources}
    for folder in roots.values():
        if folder.exists() and not is_drawn(folder) and (folder.is_file() or any(folder.iterdir())):
            raise ValueError(
                f"{folder} holds something that was not drawn (it has no {MARKER}), perhaps the real dataset, whose "
                "annotation files would be overwritten: draw into another folder"
            )
        refuse_links(folder)
    total = images * len(roots)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _single_thread) if workers > 1 else None
    try:
        for position, (source, folder) in enumerate(roots.items()):
            prepare_folders(source, folder)
            (folder / MARKER).write_text(f"Drawn by `talking-points draw-sample`: a stand-in for {source}.\n")
            encode = partial(encode_image, source, folder, seed, variant=variant)
            encoded = pool.map(encode, range(images), chunksize=_CHUNK) if pool else map(encode, range(images))
            with JointFiles(source, folder) as joint:
                for done, entries in enumerate(encoded, start=1):
                    joint.add(entries)
                    if progress:
                        progress(position * images + done, total)
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    return roots


def drawn_roots(root: Path) -> dict[str, Path]:
    """Where ``draw_sample`` puts each source."""
    return {source: Path(root) / folder for source, folder in FOLDERS.items()}


def is_drawn(root: Path) -> bool:
    """Whether the source in this folder was drawn."""
    return (root / MARKER).is_file()


def _single_thread() -> None:
    """Processes share the cores, so that OpenCV's own threads would only get in their way."""
    cv2.setNumThreads(1)
