"""Figures of the human check, on answers whose shares are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from talking_points.audit.findings import DESCRIPTIONS, summarize, wilson_interval, write_report
from talking_points.audit.items import Item, Questions, load_questions
from talking_points.audit.store import ANSWERS, Answer, AnswerStore, Verdict
from talking_points.publishing.card import render_card
from talking_points.publishing.release import prepare_release, read_audit
from tests.publishing.small_dataset import ROWS, noise_jpeg, small_manifest, write_dataset


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 10, 0.2366, 0.7634), (0.91, 200, 0.8622, 0.9424), (1.0, 5, 0.5655, 1.0), (0.0, 0, 0.0, 1.0)],
)
def test_wilson_interval(share: float, count: int, low: float, high: float) -> None:
    """Figures of Wilson's formula worked out apart."""
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)


def click(item: Item, person: str, distance: float | None) -> Answer:
    verdict: Verdict = "cannot_tell" if distance is None else "point"
    x = None if distance is None else item.keypoint[0] + distance * item.width
    y = None if distance is None else item.keypoint[1]
    return Answer("localize", item.id, item.content, person, verdict, x, y, distance, None, 4.0, "now")


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    return load_questions(write_dataset(tmp_path / "dataset"), share=1.0)


def test_shares_agreement_and_worst(questions: Questions) -> None:
    first, second, third, *_ = questions.items
    answers = [
        click(first, "ann", 0.05),
        click(first, "ben", 0.15),
        click(second, "ann", 0.1),
        click(second, "ben", 0.5),
        click(third, "ann", None),
        Answer("localize", third.id, "words of another build", "ben", "point", 1, 1, 0.01),
    ]
    summary = summarize(questions, answers)
    assert (summary["people"], summary["answers"], summary["checked"], summary["rows"]) == (2, 5, 3, ROWS["test"])
    within = {share["threshold"]: share["share"] for share in summary["shares"]}
    assert within[0.1] == pytest.approx((0.5 + 0 + 0) / 3), "a distance of exactly the threshold is a miss"
    assert within[0.2] == pytest.approx((1 + 0.5 + 0) / 3)
    assert summary["cannot_tell"] == pytest.approx(1 / 5)
    assert summary["agreement"] == pytest.approx(1 / 2)
    assert [case["distance"] for case in summary["worst"]] == [None, 0.5, 0.15, 0.1]
    assert sum(source["answers"] for source in summary["sources"]) == 3


def test_report_files_and_card(questions: Questions, tmp_path: Path) -> None:
    output = tmp_path / "dataset"
    assert read_audit(output) is None
    store = AnswerStore(output / ANSWERS)
    for number, item in enumerate(questions.items):
        store.add(click(item, "ann", 0.02 if number else 0.6))
    summary = write_report(output, questions)
    assert read_audit(output) == json.loads(json.dumps(summary))
    page = (output / "audit" / "report.md").read_text()
    assert "| 0.1 | 83.3% |" in page
    assert len(list((output / "audit" / "worst").glob("*.png"))) == 1
    card = render_card(small_manifest(ROWS, "embed"), audit=read_audit(output))
    assert "1 person answered for 6 of 6 rows of the test split" in card
    assert "| within 0.1 of the image | 83.3 % |" in card


def test_a_check_of_other_rows_or_without_answers_stays_out_of_the_card(questions: Questions, tmp_path: Path) -> None:
    output = tmp_path / "dataset"

    def published() -> tuple[str, tuple[str, ...]]:
        release = prepare_release(output, "org/name", tmp_path / "work", images="embed", public=False)
        return str(release.files["README.md"]), release.warnings

    write_report(output, questions)
    card, warnings = published()
    assert "Checked by people" not in card
    assert "nobody answered" in warnings[0]
    AnswerStore(output / ANSWERS).add(click(questions.items[0], "ann", 0.02))
    write_report(output, questions)
    card, warnings = published()
    assert "Checked by people" in card
    assert not warnings
    for folder in ("data", "figures"):
        shutil.rmtree(output / folder)
    write_dataset(output, encode=lambda number: noise_jpeg(number + 1))
    card, warnings = published()
    assert "Checked by people" not in card
    assert "the rows have changed since" in warnings[0]


def test_comparison(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    questions = load_questions(output, "compare", share=1.0)
    store = AnswerStore(output / ANSWERS)
    for number, item in enumerate(questions.items):
        choice = [None, "draft", "description", "description", "description", "description"][number]
        verdict: Verdict = "prefer" if choice else "tie"
        store.add(Answer("compare", item.id, item.content, "ann", verdict, text=choice, seconds=1.0))
    summary = write_report(output, questions)
    shares = {preference["name"]: preference["share"] for preference in summary["preferences"]}
    assert shares == {"description": pytest.approx(0.8), "draft": pytest.approx(0.2)}
    assert summary["ties"] == 1
    assert json.loads((output / "audit" / "comparison.json").read_text()) == summary


def test_descriptions_of_people_become_an_evaluation_file(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    questions = load_questions(output, "describe", share=0.5)
    item = questions.items[1]
    AnswerStore(output / ANSWERS).add(
        Answer("describe", item.id, item.content, "ann", "text", text='On the tip of the "left" ear.', seconds=9.0)
    )
    write_report(output, questions)
    rows = [json.loads(line) for line in (output / DESCRIPTIONS).read_text().splitlines()]
    assert [(row["id"], row["description"]) for row in rows] == [(item.id, 'On the tip of the "left" ear.')]
    assert rows[0]["keypoint_normalized"] == [item.keypoint[0] / item.width, item.keypoint[1] / item.height]


def test_nobody_answered_yet(questions: Questions) -> None:
    summary = summarize(questions, [])
    assert (summary["answers"], summary["people"]) == (0, 0)
    assert "shares" not in summary
