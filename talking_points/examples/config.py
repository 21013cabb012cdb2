"""Settings of what models learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from talking_points.config import Section


class FeatureConfig(Section):
    """The cache of what the frozen vision path computes."""

    folder: Path = Field(default=Path("build/features"), description="shared by runs; entries are named by content")
    limit_gb: float = Field(
        default=50.0,
        gt=0,
        description="oldest entries go when the cache grows beyond this; evaluation leaves at least what the last "
        "training with this folder allowed",
    )
    memory_gb: float = Field(default=1.0, ge=0, description="what a process keeps of it in memory")
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="what is stored; default: what the model was trained on, float32 for a new one"
    )
    batch_size: int = Field(default=8, ge=1, description="images encoded at a time")


class KeypointFiles(Section):
    """Objects with named keypoints: of MP-100, or of COCO keypoint files of one's own, which take its place.

    ``rows`` are points of a dataset instead, each asked for by its description in the whole image.
    """

    root: Path | None = Field(default=None, description="folder of MP-100")
    links: list[Path] = Field(
        default_factory=list,
        description="folders outside it that links in it may lead to: where its datasets lie",
    )
    partition: int = Field(default=1, ge=1, le=5, description="which of the five divisions of the categories")
    exclude: list[int] = Field(default_factory=list, description="ids left out, for example 80: hands that do not fit")
    own: Path | None = Field(default=None, description="folder of COCO keypoint files of one's own, instead")
    rows: Path | None = Field(
        default=None, description="folder of a dataset of described points (LlamaPointInPart), instead"
    )
    categories: list[str] = Field(default_factory=list, description="names of the categories that are used; none: all")
    limit: int | None = Field(default=None, ge=1, description="at most so many objects, drawn by seed")

    @model_validator(mode="before")
    @classmethod
    def _own_instead(cls, values: Any) -> Any:
        """A shipped configuration has a ``root``, which nobody should have to take out."""
        own = isinstance(values, dict) and any(values.get(place) is not None for place in ("own", "rows"))
        return {**values, "root": None} if own else values

    @model_validator(mode="after")
    def _one_place(self) -> KeypointFiles:
        if self.own is not None and self.rows is not None:
            raise ValueError("give either own, a folder of COCO keypoint files, or rows, a dataset of described points")
        return self


class KeypointsConfig(Section):
    """Labelled keypoints without descriptions, of any source that has them."""

    source: str = Field(default="ap10k", description="ap10k, mp100, coco_keypoints, or a source of another package")
    root: Path | None = None
    categories: list[str] = Field(
        default_factory=list, description="by name or id, in AP-10K also by family; default: all that there are"
    )
    split: str | None = Field(default=None, description="of the source; default: all that there are")

    @property
    def title(self) -> str:
        """The source and the categories, as reports name them."""
        return f"{self.source} {', '.join(self.categories)}".strip()


def refuse_former_keys(values: Any) -> Any:
    """For validators: raise ``ValueError`` where a configuration has the section that AP-10K once had to itself."""
    if isinstance(values, dict) and "ap10k" in values:
        raise ValueError(
            "the section ap10k is now keypoints, of any source: ap10k.root is keypoints.root; ap10k.family and "
            "ap10k.train_family are keypoints.categories, a list such as [Bovidae]; ap10k.test_family is "
            "keypoints.test_categories, ap10k.limit keypoints.limit"
        )
    return values
