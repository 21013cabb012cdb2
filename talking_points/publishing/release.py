"""What goes up to the Hub: the files of a finished dataset, checked, with the pixels that its sources allow."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from talking_points import dataset_manifest
from talking_points.config import fingerprint
from talking_points.dataset_files import dataset_file, image_bytes
from talking_points.dataset_manifest import AUDIT_REPORT
from talking_points.errors import InputError
from talking_points.publishing.card import card_figures, image_modes
from talking_points.publishing.forms import DatasetForm, form_of
from talking_points.publishing.image_cells import ImageCell, ImageMode, image_cell
from talking_points.publishing.rewriting import rewrite_images
from talking_points.publishing.row_checks import check_counts, check_rows
from talking_points.publishing.terms import source_terms
from talking_points.whole_files import file_sha256

_PIXELS: tuple[ImageMode, ...] = ("reference", "thumbnail", "embed")


class ReleaseError(InputError):
    """The dataset cannot be published as asked: says what was expected, what was found, what to do."""


@dataclass(frozen=True)
class Release:
    """A dataset as it goes up. ``files`` maps paths in the repository to local files or to text."""

    manifest: Mapping[str, Any]
    files: Mapping[str, Path | str]
    warnings: tuple[str, ...]

    @property
    def data(self) -> dict[str, Path]:
        """The Parquet files alone."""
        return {name: path for name, path in self.files.items() if isinstance(path, Path) and name.startswith("data/")}

    def check_staged(self) -> dict[str, str]:
        """The sha256 of the data by path, once every file is there as the manifest says. Raises ``ReleaseError``.

        What is missing here would be deleted there.
        """
        missing = [str(file) for file in self.files.values() if isinstance(file, Path) and not file.is_file()]
        if missing:
            raise ReleaseError(
                f"{', '.join(missing)} went away while the dataset was published, perhaps by another build into its "
                "folder: nothing more was uploaded; wait until it is done, then run the same command again"
            )
        digests = {file["path"]: file["sha256"] for file in self.manifest["files"]}
        changed = [str(path) for name, path in self.data.items() if file_sha256(path) != digests[name]]
        if changed:
            raise ReleaseError(
                f"{', '.join(changed)} changed while the dataset was published, perhaps by another build into its "
                "folder: nothing more was uploaded; wait until it is done, then run the same command again"
            )
        return digests

    @property
    def name(self) -> str:
        """A tag that names exactly this content."""
        contents = {name: content_sha256(file) for name, file in sorted(self.files.items())}
        return f"build-{hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:12]}"


def prepare_release(
    output: Path,
    repo: str,
    workspace: Path,
    *,
    images: ImageMode | None = None,
    public: bool = True,
    allow_partial: bool = False,
) -> Release:
    """Check the dataset in ``output`` and make of it what ``repo`` ("org/name") is to hold.

    ``images`` says what rows carry of their images. By default that is what the build's configuration asks for, and
    where it asks for nothing, what the terms of each source allow. Rows are written anew, into ``workspace``, only
    when they carry more than that, or their files more than the schema. Raises ``ReleaseError`` for a dataset that is
    incomplete or damaged, that is partial without ``allow_partial``, or that lacks the pixels asked for.
    """
    manifest = read_manifest(output)
    if manifest.get("partial") and not allow_partial:
        raise ReleaseError(
            f"{output} is a partial build: finish it (run the same build again without 'limit'), or allow partial "
            "datasets; the card then says so"
        )
    check_counts(output, manifest, check_rows(output, manifest))
    folder, form = output, form_of(manifest)
    modes = _choose_modes(manifest, images)
    paths = [dataset_file(output, file["path"]) for file in manifest["files"]]
    # What else a file holds or tells its readers, columns and types of features, does not go up.
    if modes != image_modes(manifest) or not all(map(form.wrote, paths)):
        written = rewrite_images(output, workspace, manifest["files"], partial(_reduce_pixels, modes, form), form)
        manifest = {**manifest, "images": modes, "files": list(written)}
        folder = workspace
    else:
        for path in paths:
            # Whoever reads what goes up must not be led to other files by an image that is a path.
            deque(form.read_groups(path, form.columns_in(path)), maxlen=0)
    figures = card_figures(manifest)
    manifest = {**manifest, "figures": figures}
    audit = read_audit(output)
    files: dict[str, Path | str] = {
        "README.md": form.render(manifest, repo=repo, audit=audit),
        "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
    }
    files |= {name: dataset_file(output, name) for name in figures}
    files |= {file["path"]: folder / file["path"] for file in manifest["files"]}
    warnings = list(_warnings(manifest, modes, public))
    if audit is None and (output / AUDIT_REPORT).is_file():
        warnings.append(
            f"{output / AUDIT_REPORT} is not in the card: nobody answered, or the rows have changed since; run "
            "'talking-points audit' again"
        )
    return Release(manifest, files, tuple(warnings))


def read_manifest(output: Path) -> dict[str, Any]:
    """The manifest of a finished dataset whose files are all there and unchanged.

    Raises ``DatasetError`` for one that is not as a build writes it, ``ReleaseError`` for a file that has changed.
    """
    manifest = dataset_manifest.read_manifest(output)
    for file in manifest["files"]:
        path = dataset_file(output, file["path"])
        # The size is looked at first: a file with holes may say that it has terabytes.
        same_size = file["bytes"] in (0, path.stat().st_size)
        if not same_size or file_sha256(path) != file["sha256"]:
            raise ReleaseError(f"{path} is not the file that was built (its sha256 differs); run the build again")
    return manifest


def read_audit(output: Path) -> dict[str, Any] | None:
    """The summary of the human check of a dataset, or None where nobody has checked the rows that it holds now."""
    audit = dataset_manifest.read_audit_summary(output)
    return audit if audit and audit["answers"] and audit["data"] == data_fingerprint(output) else None


def data_fingerprint(output: Path) -> str | None:
    """Names the rows of a finished dataset, after the digests in its manifest; None where there is no manifest."""
    if not (output / "manifest.json").is_file():
        return None
    files = dataset_manifest.read_manifest(output)["files"]
    return fingerprint({file["path"]: file["sha256"] for file in files})


def content_sha256(file: Path | str) -> str:
    """Hex digest of a local file's content, or of text."""
    return hashlib.sha256(file.encode()).hexdigest() if isinstance(file, str) else file_sha256(file)


def _choose_modes(manifest: Mapping[str, Any], images: ImageMode | None) -> dict[str, ImageMode]:
    asked: ImageMode | None = images or manifest.get("config", {}).get("images")
    wanted: dict[str, ImageMode] = {}
    for source, held in image_modes(manifest).items():
        if asked is None:
            allowed = source_terms(source, drawn=manifest["sources"][source].get("drawn", False)).images
            wanted[source] = min(allowed, held, key=_PIXELS.index)
        elif _PIXELS.index(asked) > _PIXELS.index(held):
            raise ReleaseError(
                f"images: {asked} was asked for, but the dataset was built with images: {held}; build it again with "
                f"images={asked}, or put the images back with 'talking-points rehydrate'"
            )
        else:
            wanted[source] = asked
    return wanted


def _warnings(manifest: Mapping[str, Any], modes: Mapping[str, ImageMode], public: bool) -> Iterator[str]:
    if manifest.get("partial"):
        yield "this is a partial build, and the card says so"
    for source, mode in modes.items():
        terms = source_terms(source, drawn=manifest["sources"][source].get("drawn", False))
        if public and _PIXELS.index(mode) > _PIXELS.index(terms.images):
            yield (
                f"pixels of {terms.title} go into a public repository, which its terms do not allow without "
                "permission; use images=reference or a private repository"
            )


def _reduce_pixels(
    modes: Mapping[str, ImageMode], form: DatasetForm, rows: pa.Table, file: Path
) -> list[ImageCell | None]:
    cells = []
    columns = (form.name_sources(rows), rows["image_path"].to_pylist())
    for source, path, image in zip(*columns, image_bytes(rows["image"]), strict=True):
        if source not in modes:
            raise ReleaseError(f"{file} has rows of {source}, which the manifest does not name")
        try:
            cells.append(None if image is None else image_cell(modes[source], image, path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ReleaseError(f"{file}: the image {path[:200]!a} cannot be decoded ({error})") from error
    return cells
