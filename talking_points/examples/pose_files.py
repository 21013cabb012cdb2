"""Objects with named keypoints as a configuration names them, with their texts, and their images kept decoded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from talking_points.config import ConfigError
from talking_points.descriptions.keypoint_texts import RULES, Texts, TextsError, load_texts, read_texts
from talking_points.errors import InputError
from talking_points.escaping import in_one_line
from talking_points.examples.config import KeypointFiles
from talking_points.examples.dataset_names import check_dataset
from talking_points.examples.described_poses import load_described
from talking_points.examples.keypoints import PoseExample, PoseSet, load_poses
from talking_points.records import derive_seed
from talking_points.sources.coco_keypoints import CocoKeypoints
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets, set_of
from talking_points.sources.layout import descend
from talking_points.sources.mp100 import Mp100
from talking_points.sources.protocol import SourceError
from talking_points.whole_files import file_sha256, read_json, write_json

TRAINED = "trained_poses.json"

_Share = Annotated[float, Field(allow_inf_nan=False)]


@with_config(ConfigDict(strict=True, extra="forbid"))
class _Trained(TypedDict):
    categories: dict[Annotated[str, Field(pattern=r"^-?[0-9]{1,12}$")], str]
    sets: list[str]
    names: list[str]
    mean_pose: dict[str, Annotated[list[_Share], Field(min_length=2, max_length=2)]]
    own: NotRequired[dict[str, Annotated[list[str], Field(min_length=1)]]]


_TRAINED: TypeAdapter[_Trained] = TypeAdapter(_Trained)


def check_keypoints(config: KeypointFiles, setting: str = "keypoints", split: str | None = None) -> Path:
    """The folder of the keypoints.

    Raises ``ConfigError`` for none, one that is not there or has no such files, or none of the ``split``.
    """
    if config.rows is not None:
        if not config.rows.is_dir():
            raise ConfigError(
                f"{setting}.rows: expected the folder of a dataset of described points, found none at {config.rows}; "
                "make one with 'talking-points build', or fetch one with 'hf download'"
            )
        check_dataset(str(config.rows), f"{setting}.rows")
        return config.rows
    folder = config.own or config.root
    if folder is None:
        raise ConfigError(
            f"{setting}: expected {setting}.root, the folder of MP-100, or {setting}.own, a folder of COCO keypoint "
            "files, found neither; 'talking-points draw-sample --sources mp100' draws one"
        )
    if not folder.is_dir():
        raise ConfigError(f"{setting}: expected the folder of keypoint annotations, found none at {folder}")
    try:
        if config.own is None:
            Mp100(folder, split, partition=config.partition)
        else:
            CocoKeypoints(folder, split).keypoint_sets()
    except SourceError as error:
        raise ConfigError(f"{setting}: {error}") from error
    return folder


def open_poses(config: KeypointFiles, split: str | None, seed: int = 0) -> PoseSet:
    """The objects of a split; MP-100's splits are train, val and test of the partition.

    Raises ``ConfigError`` for categories that do not occur, and where nothing is left.
    """
    check_keypoints(config)
    details: Mapping[str, Sequence[str]] = {}
    if config.rows is not None:
        poses = load_described(str(config.rows), split or "train")
    elif config.own is None:
        assert config.root is not None
        check_partition(config.root, config.partition)
        source = Mp100(
            config.root, split, partition=config.partition, exclude_categories=config.exclude, links=config.links
        )
        poses = load_poses(source, lambda item: set_of(item.id))
        poses, details = replace(poses, missing=source.missing_by_name()), source.skipped_details
    else:
        own = CocoKeypoints(config.own, split)
        sets = own.keypoint_sets()
        poses, details = load_poses(own, lambda item: sets[item.id]), own.skipped_details
    if config.categories:
        known = {name.lower() for name in poses.categories.values()}
        unknown = [name for name in config.categories if name.lower() not in known]
        if unknown:
            raise ConfigError(f"keypoints.categories: expected some of {', '.join(sorted(known))}; found {unknown}")
        wanted = {name.lower() for name in config.categories}
        poses = poses.subset(i for i, one in enumerate(poses.examples) if one.category_name.lower() in wanted)
        poses = replace(poses, missing={name: n for name, n in poses.missing.items() if name.lower() in wanted})
    if not len(poses):
        shown = {reason: f": {in_one_line(first[0])[:120]}" for reason, first in details.items() if first}
        counted = (
            "; ".join(f"{count} {reason}{shown.get(reason, '')}" for reason, count in sorted(poses.skipped.items()))
            or "none listed"
        )
        links = "path_outside_root" in poses.skipped and config.root is not None
        hint = f"; 'talking-points doctor --source mp100 {config.root}' says where its links lead to" if links else ""
        if not poses.skipped.keys().isdisjoint(("missing_image", "path_outside_root")) and config.own is not None:
            hint = (
                f"; images are looked for in {config.own} and in its folders images, images/SPLIT, data and SPLIT, "
                "under names that count from there"
            )
        raise ConfigError(
            f"expected objects with labelled keypoints in {split or 'any'} split, found none ({counted}){hint}"
        )
    if config.limit is not None and config.limit < len(poses):
        poses = poses.subset(sorted(np.random.default_rng(seed).permutation(len(poses))[: config.limit].tolist()))
    return poses


def check_partition(root: Path, partition: int) -> None:
    """Raise ``ConfigError`` where a category of MP-100 is in two splits of a partition: its test would be no test."""
    found: dict[int, str] = {}
    for split, categories in Mp100(root, partition=partition).count_annotations().items():
        for category in sorted(categories):
            before = found.setdefault(category, split)
            if before != split:
                raise ConfigError(
                    f"partition {partition} of {root} has category {category} in {before} and in {split}: expected "
                    "disjoint categories, else a test would be of what was trained on; get the annotation files again"
                )


def texts_for(poses: PoseSet, author: str | Path | None) -> Texts:
    """Descriptions by (set, keypoint); none where no author is named, or for sets that the rules know nothing of.

    Raises ``ConfigError`` for a file that lacks texts or whose texts fail the checks.
    """
    if author is None:
        return {}
    if poses.texts:
        return dict(poses.texts)
    sets = list({one.keypoints.key: one.keypoints for one in poses.examples}.values())
    if str(author) == RULES:
        return load_texts(RULES, [one for one in sets if is_shared(one)])
    try:
        given = {row.set for row in read_texts(Path(author))}
        if not given & {one.key for one in sets}:
            raise TextsError(
                f"expected descriptions of {', '.join(sorted(one.key for one in sets))} in {author}, found those of "
                f"{', '.join(sorted(given)) or 'nothing'}: name the file that belongs to these keypoints"
            )
        return load_texts(author, [one for one in sets if one.key in given])
    except TextsError as error:
        raise ConfigError(str(error)) from error


def check_texts_file(author: str | None, setting: str) -> None:
    """Raise ``ConfigError`` unless it is the author of the embedded texts, none, or a file of texts."""
    if author in (None, RULES):
        return
    try:
        read_texts(Path(str(author)))
    except TextsError as error:
        raise ConfigError(f"{setting}: expected the author rules, null for names alone, or a file; {error}") from error


def is_shared(keypoints: KeypointSet) -> bool:
    """Whether it is one of MP-100's sets, of which there are facts."""
    return bool(keypoints.categories) and keypoints.source != ""


def annotations_digest(config: KeypointFiles) -> dict[str, str]:
    """sha256 of the annotation files by name: what a training depends on."""
    folder = check_keypoints(config)
    if config.rows is not None:
        files = sorted(folder.glob("data/*.parquet"))
    elif config.own is None:
        assert config.root is not None
        files = [
            path
            for split in ("train", "val", "test")
            if (path := descend(Mp100(folder).root, "annotations", f"mp100_split{config.partition}_{split}.json"))
        ]
    else:
        base = folder.resolve()
        files = sorted({*base.glob("*.json"), *base.glob("annotations/*.json")})
        # Those of train, valid and test often have one name.
        apart = [path for path in CocoKeypoints(base).annotation_files if path not in files]
        return {path.name: file_sha256(path) for path in files} | {
            path.relative_to(base).as_posix(): file_sha256(path) for path in apart
        }
    return {path.name: file_sha256(path) for path in files}


class DecodedImages:
    """Images of objects, decoded once as long as ``most_bytes`` hold them; only what is around the objects is kept."""

    def __init__(self, poses: PoseSet, most_bytes: float = 1.5e9) -> None:
        self._poses = poses
        self._room = most_bytes
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def __getitem__(self, image: str) -> NDArray[np.uint8]:
        """The image of a key, uint8 (height, width, 3)."""
        found = self._kept.get(image)
        if found is None:
            found = next(iter(np.asarray(decoded) for _, decoded in self._poses.decode([image])))
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._kept[image] = found
        return found


def pixels_of(poses: PoseSet, examples: Sequence[PoseExample]) -> Iterator[tuple[PoseExample, NDArray[np.uint8]]]:
    """Every object with its image, images decoded one after another."""
    by_image: dict[str, list[PoseExample]] = {}
    for example in examples:
        by_image.setdefault(example.image, []).append(example)
    for key, image in poses.decode(by_image.keys()):
        pixels = np.asarray(image)
        for example in by_image[key]:
            yield example, pixels


def hold_out(poses: PoseSet, share: float, seed: int) -> tuple[PoseSet, PoseSet]:
    """Two sets of objects without a common image: what is trained on, and about ``share`` of the images."""
    chosen = {image for image in _images(poses) if derive_seed(seed, "held out", image) % 10_000 < share * 10_000}
    apart = [example.image in chosen for example in poses.examples]
    kept, held = (poses.subset(i for i, own in enumerate(apart) if own == side) for side in (False, True))
    if not len(kept) or not len(held):
        raise ConfigError(f"a share of {share:g} of {len(apart)} objects leaves nothing to train on or to measure on")
    return kept, held


def _images(poses: PoseSet) -> Collection[str]:
    return {example.image for example in poses.examples}


def mean_pose(objects: Sequence[PoseExample]) -> dict[str, list[float]]:
    """The mean place of every keypoint name in shares of the box's square, and of all under the empty name."""
    found: dict[str, list[NDArray[np.float64]]] = {"": []}
    for one in objects:
        side, centre = max(one.box[2:]), np.array(one.box[:2]) + np.array(one.box[2:]) / 2
        for index in np.flatnonzero(one.visible):
            place = (one.points[index] - centre) / side
            found.setdefault(one.keypoints.names[index], []).append(place)
            found[""].append(place)
    return {name: np.mean(places, axis=0).tolist() for name, places in found.items() if places}


@dataclass(frozen=True)
class TrainedPoses:
    """What a model of keypoints was trained on: category ids with names, keys of keypoint sets, names of keypoints.

    mean_pose: the mean place of every name, as ``mean_pose`` gives it. own: keypoints, in the order of annotation, of
    categories that are not MP-100's, by name.
    """

    categories: Mapping[int, str]
    sets: Collection[str]
    names: Collection[str]
    mean_pose: Mapping[str, Sequence[float]]
    own: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, poses: PoseSet) -> TrainedPoses:
        """Of the objects that are trained on."""
        examples = poses.examples
        sets = [] if poses.texts else sorted({one.keypoints.key for one in examples})
        names = sorted({name for one in examples for name in one.keypoints.names})
        known = keypoint_sets()
        own = {one.category_name: list(one.keypoints.names) for one in examples if one.keypoints.key not in known}
        return cls(poses.categories, sets, names, mean_pose(examples), own)

    def write(self, folder: Path) -> None:
        """Leave it in a model's folder."""
        listed = {**asdict(self), "categories": {str(key): name for key, name in self.categories.items()}}
        write_json(folder / TRAINED, listed)

    @classmethod
    def read(cls, folder: Path) -> TrainedPoses | None:
        """What a training left in a model's folder; None where there is nothing."""
        if not (folder / TRAINED).is_file():
            return None
        found = read_json(folder / TRAINED, "train the model again", _TRAINED)
        if "" not in found["mean_pose"]:
            raise InputError(f"{folder / TRAINED} has no mean place of all keypoints: train the model again")
        return cls(**found | {"categories": {int(key): name for key, name in found["categories"].items()}})
