"""The pipeline on real photographs in the true layouts of all three sources."""

from __future__ import annotations

import re
from typing import Any

import datasets
import pytest

from talking_points.build_config import VerificationConfig
from talking_points.descriptions.verification import verify
from talking_points.records import Candidate
from talking_points.sources import open_source
from tests.flows.building import SOURCES, build
from tests.shared_data import shared_path

pytestmark = pytest.mark.usefixtures("orchestrator")

FOLDERS = {
    "pascal_part116": "pascal_part116/PascalPart116",
    "ade20k_part234": "ade20k_part234/ADE20KPart234",
    "partimagenet": "partimagenet/PartImageNet_OOD",
}


@pytest.fixture(scope="module", params=["image", "part"])
def rows(request: pytest.FixtureRequest, orchestrator: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    roots = {name: shared_path("samples", folder) for name, folder in FOLDERS.items()}
    output = tmp_path_factory.mktemp("samples")
    build(output, roots, f"keypoints.per={request.param}")
    dataset = datasets.load_dataset(str(output))
    return roots, request.param, [row for split in dataset.values() for row in split]


def test_every_source_and_image_is_there(rows: Any) -> None:
    _, per, found = rows
    per_source = [sum(row["source"] == number for row in found) for number in range(3)]
    assert len(set(per_source)) == 1
    assert per_source[0] == 3 if per == "image" else per_source[0] > 3


def test_keypoints_lie_in_their_parts(rows: Any) -> None:
    roots, _, found = rows
    records = {(name, record.image_id): record for name in SOURCES for record in open_source(name, roots[name])}
    for row in found:
        record = records[SOURCES[row["source"]], row["image_id"]]
        x, y = (round(value) for value in row["keypoint"])
        assert any(
            part.mask is not None and part.mask[y, x]
            for thing in record.objects
            if thing.name == row["object"]
            for part in thing.parts
            if part.name == row["part"]
        )


def test_descriptions_pass_the_verifier_and_read_as_one_sentence(rows: Any) -> None:
    exact = {
        (name, record.image_id, thing.name): thing.instance_exact
        for name in SOURCES
        for record in open_source(name, rows[0][name])
        for thing in record.objects
    }
    for row in rows[2]:
        source = SOURCES[row["source"]]
        known = {"source": source, "image_phash": 0, "instance_exact": exact[source, row["image_id"], row["object"]]}
        assert verify(row["description"], Candidate.from_row(row | known), VerificationConfig()).accepted
        assert row["object"] in row["description"]
        assert row["part"] in row["description"]
        assert row["description"].count(".") == 1
        assert not re.search(r"\d", row["description"])


def test_phrases_follow_from_the_boxes(rows: Any) -> None:
    for row in rows[2]:
        image = (0.0, 0.0, row["image_width"], row["image_height"])
        point = (*row["keypoint"], 0.0, 0.0)
        check(row["object_location"], row["object_bbox"], image)
        check(row["part_location"], row["part_bbox"], row["object_bbox"])
        check(row["point_location"], point, row["part_bbox"])


def check(phrase: str, box: Any, frame: Any) -> None:
    """Derive anew, from the documented table alone, which sides a phrase must and must not name."""
    words = phrase.replace("edges", "edge")
    for axis, sides in ((0, ("left", "right")), (1, ("top|above|upper", "bottom|below|lower"))):
        # Box corners are pixel centers: a frame of N pixels reaches from -0.5 to N - 0.5.
        extent, room = box[2 + axis], frame[2 + axis]
        start = box[axis] - frame[axis]
        center = start + extent / 2 + (0.5 if extent == 0 else 0)
        displacement = 2 * center / room - 1
        near = [bool(re.search(rf"\b({side})\b", words)) for side in sides]
        if extent >= 0.75 * room:
            assert near == [False, False], (phrase, box, frame)
            assert "span" in words
        elif abs(displacement) > 0.12:
            assert near == [displacement < 0, displacement > 0], (phrase, box, frame)
            assert ("slightly" in words) or abs(displacement) > 0.3, (phrase, box, frame)
        elif abs(displacement) < 0.08:
            assert near == [False, False], (phrase, box, frame)
