"""Which rows people are asked about, in which order, with which image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_points.audit.items import AuditError, draw_marks, load_questions, read_image
from tests.publishing.small_dataset import HEIGHT, ROWS, WIDTH, noise_jpeg, point_of, write_dataset


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset", rows_per_file=4)


@pytest.mark.parametrize(("share", "count"), [(0.05, 1), (0.5, 3), (1.0, 6)])
def test_share_of_the_test_rows(output: Path, share: float, count: int) -> None:
    questions = load_questions(output, share=share)
    assert len(questions.items) == count
    assert questions.rows == ROWS["test"]
    assert questions == load_questions(output, share=share), "the same rows every time"
    assert questions.items == load_questions(output, share=1.0).items[:count], (
        "a larger share asks for more, not others"
    )


def test_items_carry_their_row(output: Path) -> None:
    for item in load_questions(output, share=1.0, split="train").items:
        number = int(item.id, 16)
        assert item.texts["description"].startswith(f"Row {number}:")
        assert item.keypoint == point_of(number)
        assert read_image(item.place) == noise_jpeg(number)
        x, y = item.keypoint
        assert item.distance(x, y) == 0
        assert item.distance(x + 0.1 * WIDTH, y) == pytest.approx(0.1)
        assert item.distance(x + 0.03 * WIDTH, y + 0.04 * HEIGHT) == pytest.approx(0.05)


def test_comparison_is_blind_and_stable(output: Path) -> None:
    questions = load_questions(output, "compare", share=1.0, split="train")
    orders = [tuple(questions.order(item, person)) for item in questions.items for person in ("ann", "ben")]
    assert set(orders) == {("draft", "description"), ("description", "draft")}
    assert orders == [tuple(questions.order(item, person)) for item in questions.items for person in ("ann", "ben")]


def test_comparison_of_two_datasets_keeps_the_rows_of_both(output: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", rows={"train": 14})
    questions = load_questions(output, "compare", share=1.0, against=other)
    assert sorted(int(item.id, 16) for item in questions.items) == [12, 13], "test rows here, train rows there"
    assert set(questions.items[0].texts) == {"this", "other"}


@pytest.mark.parametrize("images", ["reference", "thumbnail"])
def test_rows_without_their_images_are_refused(tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talking_points.publishing.image_cells.THUMBNAIL_SIDE", 32)
    output = write_dataset(tmp_path / "dataset", images=images)  # type: ignore[arg-type]
    with pytest.raises(AuditError, match="rehydrate"):
        load_questions(output)


def test_wrong_requests(output: Path) -> None:
    with pytest.raises(AuditError, match="share"):
        load_questions(output, share=0)
    with pytest.raises(AuditError, match="split 'validation'"):
        load_questions(output, split="validation")


def test_images_are_shown_in_stored_pixel_order(tmp_path: Path) -> None:
    def turned(number: int) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(file, format="JPEG", exif=exif)
        return file.getvalue()

    item = load_questions(write_dataset(tmp_path / "dataset", encode=turned)).items[0]
    with Image.open(io.BytesIO(read_image(item.place))) as shown:
        assert shown.size == (WIDTH, HEIGHT)
        assert shown.getexif().get(0x0112, 1) == 1, "no browser turns it"


def test_marks_are_drawn_where_they_belong(output: Path) -> None:
    item = load_questions(output).items[0]
    click = (WIDTH * 0.9, HEIGHT * 0.9)
    plain, marked = (np.asarray(draw_marks(item, at), dtype=int) for at in (None, click))
    rows, columns = np.nonzero(np.abs(plain - marked).sum(axis=2))
    scale = marked.shape[1] / WIDTH
    assert columns.mean() == pytest.approx(click[0] * scale, abs=2)
    assert rows.mean() == pytest.approx(click[1] * scale, abs=2)
