"""The viewer in a real browser: keys, filters, search, rejected rows, on a wide and on a narrow screen."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import HTTPException

from talking_points.audit.app import send_image
from talking_points.publishing.comparison import compare_builds, write_comparison
from talking_points.publishing.quality import write_quality_report
from tests.audit.test_app import ROOT, browser, free_port
from tests.audit.test_browsing import many_rows, with_rejected
from tests.publishing.small_dataset import write_dataset

__all__ = ["browser"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_rejected(write_dataset(tmp_path_factory.mktemp("viewer") / "a-dataset"))


def start(output: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "talking_points", "view", str(output), "--port", str(free_port())],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = re.search(r"http://\S+", process.stdout.readline())
    assert address
    deadline = time.monotonic() + 120
    while True:
        try:
            ask(address[0], "/")
            return process, address[0]
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(scope="module")
def address(output: Path) -> Iterator[str]:
    process, found = start(output)
    yield found
    process.kill()
    process.wait()


def ask(address: str, path: str, **headers: str) -> int:
    port = int(re.search(r":(\d+)/", address)[1])  # type: ignore[index]
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers=headers)
    return connection.getresponse().status


@pytest.mark.slow
def test_stopping_it_closes_the_page_and_nothing_else(output: Path) -> None:
    process, _ = start(output)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip().splitlines()[-1]) == (130, "closed"), said


def test_only_who_has_the_address_sees_it(address: str) -> None:
    token = address.partition("token=")[2]
    assert len(token) >= 16
    assert ask(address, "/") == 403
    assert ask(address, "/image/0") == 403
    assert ask(address, f"/?token={token}") == 303
    port = re.search(r":(\d+)/", address)[1]  # type: ignore[index]
    cookie = f"page_token_{port}={token}"
    assert ask(address, "/", Cookie=cookie) == 200
    assert ask(address, "/image/0", Cookie=cookie) == 200
    assert ask(address, "/image/99", Cookie=cookie) == 404
    assert ask(address, "/", Cookie=cookie, Host="evil.example") == 403
    assert ask(address, "/", Cookie=cookie, Origin="http://evil.example") == 403


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


def without_pixels(path: Path) -> None:
    change_images(path, lambda cell: None)


def cut_off(path: Path) -> None:
    change_images(path, lambda cell: cell | {"bytes": cell["bytes"][:40]})


def no_image(path: Path) -> None:
    change_images(path, lambda cell: cell | {"bytes": b"%!PS"})


def change_images(path: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    rows = pq.read_table(path)
    index = rows.schema.get_field_index("image")
    cells = pa.array([edit(cell) for cell in rows["image"].to_pylist()], rows.schema.field(index).type)
    pq.write_table(rows.set_column(index, rows.schema.field(index), cells), path)


@pytest.mark.parametrize("damage", [emptied, gone, without_pixels, cut_off, no_image])
def test_a_damaged_row_is_not_found(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Of the audit page and of the viewer, which show images in the same way."""
    output = write_dataset(tmp_path / "dataset", rows={"test": 1})
    place = (next((output / "data").iterdir()), 0, 0)
    damage(place[0])
    with pytest.raises(HTTPException) as refused:
        send_image(place)
    assert (refused.value.status_code, refused.value.detail) == (404, "this row has no pixels, or they are damaged")


def fits(page: Any) -> bool:
    """Whether the page needs no horizontal scroll."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_looking_at_rows(browser: Any, address: str, width: int, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 850})
    page.goto(address)
    page.get_by_text("18 of 18 rows").wait_for()
    page.wait_for_function(
        "() => { const image = document.querySelector('img'); return image && image.naturalWidth === 120 }"
    )
    assert page.locator("svg circle").count() == 2
    assert fits(page)
    place = page.get_by_text("spans most of the image / near the top edge", exact=False).first
    assert place.evaluate("e => getComputedStyle(e).wordBreak") == "normal", "words stay whole"
    page.screenshot(path=tmp_path / f"view-{width}.png")
    first = page.locator(".text-lg").first.inner_text()
    page.keyboard.press("ArrowRight")
    page.get_by_text("2 of 18", exact=True).wait_for()
    assert page.locator(".text-lg").first.inner_text() != first
    page.keyboard.press("ArrowLeft")
    page.get_by_text("1 of 18", exact=True).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("row 13:")
    page.get_by_text("1 of 18 rows").wait_for()
    page.get_by_text("draft of row 13").first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Search").fill("")
    page.get_by_text("18 of 18 rows").wait_for()
    page.get_by_label("rows", exact=True).click()
    page.get_by_text("rejected (3)").click()
    page.get_by_text("3 of 3 rows").wait_for()
    page.get_by_label("reason").click()
    page.get_by_text("too_short (2)").click()
    page.get_by_text("2 of 3 rows").wait_for()
    assert fits(page)
    page.screenshot(path=tmp_path / f"rejected-{width}.png")
    page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_reports_fit_a_narrow_screen(browser: Any, output: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", rows={"train": 12, "test": 6}, images="embed", seed=1)
    page_of = {
        "report": write_quality_report(other)[0],
        "comparison": write_comparison(compare_builds(output, other), tmp_path / "comparison.html"),
    }
    for name, path in page_of.items():
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 850})
            page.goto(path.as_uri())
            page.screenshot(path=tmp_path / f"{name}-{width}.png", full_page=True)
            assert fits(page), (name, width)
            whole = [table.evaluate("e => e.scrollWidth <= e.clientWidth") for table in page.locator("table").all()]
            assert all(whole), (name, width, "a table is cut off in its box")
            page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_the_papers_size_is_turned_over_without_delay(browser: Any, tmp_path: Path) -> None:
    process, address = start(many_rows(tmp_path / "dataset", 21_000))
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 850})
        page.goto(address)
        page.get_by_text("21,000 of 21,000 rows").wait_for()
        page.keyboard.press("End")
        page.get_by_text("21,000 of 21,000", exact=True).wait_for(timeout=10_000)
        page.get_by_label("Search").fill("row 20500:")
        page.get_by_text("1 of 21,000 rows").wait_for(timeout=10_000)
    finally:
        process.kill()
        process.wait()
