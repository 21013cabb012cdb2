"""The card says what the manifest holds, in a form that the Hub accepts."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Features
from huggingface_hub import DatasetCard

from talking_points.dataset_schema import features
from talking_points.publishing.card import render_card
from tests.publishing.hub_card import card_problems
from tests.publishing.small_dataset import ROWS, small_manifest


def manifest(**changes: Any) -> dict[str, Any]:
    return small_manifest(ROWS, "embed") | changes


def test_metadata_is_valid_and_complete() -> None:
    files = [{"path": f"data/{split}-00000-of-00001.parquet", "bytes": 100, "rows": n} for split, n in ROWS.items()]
    text = render_card(manifest(files=files))
    assert card_problems(text) == []
    data = DatasetCard(text).data.to_dict()
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*.parquet"}
    assert Features._from_yaml_list(data["dataset_info"]["features"]) == features()
    assert data["dataset_info"]["splits"][1] == {"name": "test", "num_bytes": 100, "num_examples": ROWS["test"]}


def test_text_is_the_same_every_time_and_without_a_place_or_time() -> None:
    content = manifest(
        config={"output": "/home/someone/out", "sources": {"partimagenet": {"root": "/data", "points": 9}}}
    )
    text = render_card(content)
    assert text == render_card(content)
    assert "/home/someone" not in text
    assert "/data" not in text
    assert "points: 9" in text


@pytest.mark.parametrize(
    ("changes", "expected", "unexpected"),
    [
        ({}, ["| Pascal-Part-116 | 4 | 2 | 6 |", "3 of 64 object", "left_right 2", "crowd 2"], ["partial build"]),
        ({}, ["![Images with their points"], ["rehydrate"]),
        ({"partial": True}, ["partial build"], []),
        ({"images": "reference"}, ["rehydrate . --output FOLDER --pascal-part116 DIR"], ["examples.png"]),
        ({"images": "thumbnail"}, ["small preview", "keypoint_normalized` on the preview"], ["examples.png"]),
        ({"config": {"keypoints": {"per": "part"}}}, ["One keypoint per part"], ["One keypoint per image"]),
        ({"figures": []}, ["## Contents"], ["![", "None"]),
    ],
)  # fmt: skip
def test_sections(changes: dict[str, Any], expected: list[str], unexpected: list[str]) -> None:
    text = render_card(manifest(**changes))
    for piece in expected:
        assert piece in text, piece
    for piece in unexpected:
        assert piece not in text, piece


def test_every_source_has_its_terms_and_citation() -> None:
    text = render_card(manifest())
    for piece in ("VOC terms", "MIT CSAIL", "ImageNet terms", "@inproceedings{partimagenet", "@misc{talking_points"):
        assert piece in text
    sources = manifest()["sources"]
    drawn = render_card(manifest(sources={"partimagenet": sources["partimagenet"] | {"drawn": True}}))
    assert "draw-sample` in the layout" in drawn
    assert "ImageNet terms" not in drawn
    assert "@inproceedings{partimagenet" not in drawn


def test_a_manifest_with_the_needed_keys_alone_is_enough() -> None:
    full = manifest()
    counts = {name: {"train": 4, "test": 2} for name in full["sources"]}
    text = render_card({key: full[key] for key in ("name", "seed", "fingerprint", "rows")} | {"sources": counts})
    assert card_problems(text) == []
    assert "None" not in text


def test_names_from_annotations_cannot_break_the_page() -> None:
    text = render_card(manifest(composition={"partimagenet": {"a|b<script>": {"c\nd": 3}}}))
    assert "<script>" not in text
    assert r"a\|b&lt;script&gt; | 3 | c d 3 |" in text


def test_human_check_is_reported() -> None:
    audit = {
        "people": 2, "checked": 20, "rows": 200, "split": "test", "cannot_tell": 0.05, "agreement": 0.9,
        "shares": [{"threshold": 0.1, "share": 0.8, "low": 0.6, "high": 0.9}],
        "sources": [{"source": "partimagenet", "share": 0.75, "answers": 8}],
    }  # fmt: skip
    text = render_card(manifest(), audit=audit)
    for piece in (
        "2 people answered for 20 of 200",
        "| within 0.1 of the image | 80.0 % | 60.0 % to 90.0 % |",
        "90.0 %",
    ):
        assert piece in text


def test_what_the_texts_cost_stands_beside_their_tokens() -> None:
    step = {"requests": 1693, "tokens_in": 1_200_000, "tokens_out": 90_000, "cost": 3.1234}
    text = render_card(manifest(cost={"currency": "EUR", "total": 3.1234, "steps": {"refine": step}}))
    assert "1,693 requests, 1,200,000 tokens in and 90,000 out for refine (3.12 EUR): 3.12 EUR in all." in text
    assert "requests," not in render_card(manifest())
