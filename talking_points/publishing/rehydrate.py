"""Putting the images back into a dataset published without them, from the user's own copies of the sources."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from talking_points.dataset_files import dataset_file
from talking_points.errors import InputError
from talking_points.image_files import FILE_BYTES
from talking_points.output_names import readable_output
from talking_points.owners import refuse_closed
from talking_points.publishing.card import image_modes
from talking_points.publishing.forms import DatasetForm, form_of
from talking_points.publishing.hub import dataset_folder
from talking_points.publishing.image_cells import ImageCell, image_cell
from talking_points.publishing.release import read_manifest
from talking_points.publishing.rewriting import rewrite_images
from talking_points.records import SOURCES
from talking_points.regular_files import read_bytes
from talking_points.sources import SkippedImage, SourceError, open_source
from talking_points.sources.layout import inside

_SHOWN = 10
"""Problems listed before giving up: with a wrong folder every image is one."""


class RehydrateError(InputError):
    """Images could not be put back: says which, what was found, what to do. Nothing was written."""


@dataclass(frozen=True)
class RehydrateReport:
    """What was written. ``images`` counts the images put back per source."""

    dataset: Path
    rows: dict[str, int]
    images: dict[str, int]


def rehydrate(
    dataset: str | Path,
    roots: Mapping[str, Path],
    output: Path,
    *,
    revision: str | None = None,
    token: SecretStr | None = None,
) -> RehydrateReport:
    """Write ``dataset`` with its images to ``output``, as ``load_dataset`` reads it: the same columns, rows and order.

    ``dataset`` is a folder or a repository "org/name" of the Hub, there at ``revision``. ``roots`` maps a source's name
    to its unpacked folder. Every image must have the recorded sha256. Nothing is read outside the dataset and the
    roots, nor written outside ``output``. Raises ``RehydrateError`` for missing sources and for images that are missing
    or other files, ``DatasetError``, ``ReleaseError`` or ``PublishError`` for a dataset that cannot be used.
    """
    output = _new_folder(output)
    folder = dataset_folder(dataset, revision, token)
    manifest = read_manifest(folder)
    form = form_of(manifest)
    reader = _SourceImages(_roots(manifest, roots))
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=".rehydrate-") as workspace:
        complete = Path(workspace) / "dataset"
        files = list(rewrite_images(folder, complete, manifest["files"], partial(_make_cells, reader, form), form))
        if reader.problems:
            raise RehydrateError(_explanation(reader.problems))
        for figure in manifest.get("figures", ()):
            (complete / figure).parent.mkdir(exist_ok=True)
            shutil.copyfile(dataset_file(folder, figure), complete / figure)
        manifest = {**manifest, "images": "embed", "files": files}
        (complete / "manifest.json").write_text(
            json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8", newline="\n"
        )
        (complete / "README.md").write_text(form.render(manifest), "utf-8", newline="\n")
        try:
            complete.replace(output)
        except OSError as error:  # somebody else has put one there meanwhile
            raise RehydrateError(
                f"cannot put the dataset at {output} ({error.strerror}): choose another output"
            ) from None
    return RehydrateReport(output, dict(manifest["rows"]), dict(reader.found))


def _new_folder(output: Path) -> Path:
    """``output`` as an absolute path at which a folder can be put, which is found out before any work."""
    try:
        path = Path(os.path.abspath(readable_output(str(output))))  # noqa: PTH100  # links are judged, not followed
        # A link cannot be replaced by a folder, wherever it leads.
        taken = path.is_symlink() or (path.exists() and not path.is_dir())
        filled = not taken and path.exists() and any(path.iterdir())
        place = next(parent for parent in path.parents if os.path.lexists(parent))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RehydrateError(f"no dataset can be written to {ascii(str(output))[1:-1][:300]} ({reason})") from None
    if taken:
        raise RehydrateError(f"expected a new folder at {output}, found a link or a file: choose another output")
    if filled:
        raise RehydrateError(f"{output} is not empty: name a new folder, so that nothing in it gets lost")
    if not place.is_dir():
        raise RehydrateError(f"no folder can be made in {place}, which is none itself: choose another output")
    refuse_closed(path)
    return path


class _SourceImages:
    """Reads source images by the path and digest that rows have of them, and keeps what went wrong."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self.roots = roots
        self.problems: list[str] = []
        self.found = dict.fromkeys(roots, 0)

    def cell(self, source: str, path: str, sha256: str) -> ImageCell | None:
        """The image as a build embeds it, or None with a problem noted."""
        try:
            content = read_bytes(inside(self.roots[source], path), FILE_BYTES)
        except SkippedImage as error:
            self.problems.append(f"{source}: {error}")
            return None
        except OSError as error:
            self.problems.append(f"{source}: {path}: {error.strerror} in {self.roots[source]}")
            return None
        if hashlib.sha256(content).hexdigest() != sha256:
            self.problems.append(f"{source}: {path} is not the file that the dataset was made from (other sha256)")
            return None
        self.found[source] += 1
        return image_cell("embed", content, path)


def _roots(manifest: Mapping[str, Any], roots: Mapping[str, Path]) -> dict[str, Path]:
    """The dataset folders of the sources whose images are not in the rows."""
    needed = [source for source, mode in image_modes(manifest).items() if mode != "embed"]
    missing = [source for source in needed if source not in roots]
    if missing:
        options = " ".join(
            f"--{source.replace('_', '-')} DIR" if source in SOURCES else f"--root {source}=DIR" for source in missing
        )
        raise RehydrateError(f"the dataset has images of {', '.join(missing)}: give their folders with {options}")
    return {source: _root(source, roots[source]) for source in needed}


def _root(source: str, given: Path) -> Path:
    """Where the source's paths start: as its reader finds it, or the folder given where the annotations are missing."""
    try:
        return open_source(source, given).root
    except SourceError:
        if not given.is_dir():
            raise RehydrateError(f"{source}: expected a folder at {given}, found none; check its option") from None
        return given.resolve()


def _make_cells(reader: _SourceImages, form: DatasetForm, rows: pa.Table, _: Path) -> list[ImageCell | None] | None:
    """The column with the images in it; None once there are more problems than are shown."""
    cells: list[ImageCell | None] = rows["image"].to_pylist()
    own = (rows[name].to_pylist() for name in ("image_path", "image_sha256"))
    identities = zip(form.name_sources(rows), *own, strict=True)
    for number, (source, path, sha256) in enumerate(identities):
        if source in reader.roots:
            cells[number] = reader.cell(source, path, sha256)
    return None if len(reader.problems) > _SHOWN else cells


def _explanation(problems: Sequence[str]) -> str:
    shown = "\n  ".join(problems[:_SHOWN])
    more = "\n  and more" if len(problems) > _SHOWN else ""
    return (
        f"images could not be put back, and nothing was written:\n  {shown}{more}\n"
        "check that the folders hold the releases that the dataset's card names, unchanged"
    )
