"""The training stages: what each of them may look at."""

from __future__ import annotations

import hashlib
from pathlib import Path

from talking_points.sources import open_source
from talking_points.training.config import VisionConfig
from talking_points.training.stages import vision_records


def test_the_vision_path_never_sees_held_out_pictures(drawn: dict[str, Path]) -> None:
    sources = {name: drawn[name] for name in ("pascal_part116", "partimagenet")}
    everything = {record.image_path for name, root in sources.items() for record in open_source(name, root)}
    first = min(everything)
    config = VisionConfig(sources=sources, images=100)
    assert {record.image_path for record in vision_records(config, [])} == everything
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    assert {record.image_path for record in vision_records(config, [digest])} == everything - {first}
    # The bound counts what is left, for each source.
    assert len(list(vision_records(config.model_copy(update={"images": 2}), [digest]))) == 4
