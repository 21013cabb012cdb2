"""Settings of what models learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

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
