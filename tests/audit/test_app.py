"""The page in a real browser, and what it refuses."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from talking_points.audit.items import load_questions
from talking_points.audit.store import ANSWERS, AnswerStore
from tests.publishing.small_dataset import HEIGHT, WIDTH, write_dataset

ZOOMED = (WIDTH / 2 - 3.0, HEIGHT / 2 + 2.0)
"""A point that is in view after zooming in, which keeps the middle in view."""

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import sys
from pathlib import Path
from talking_points.audit.address import bind
from talking_points.audit.app import serve
from talking_points.audit.items import load_questions
from talking_points.audit.store import ANSWERS, AnswerStore
output, task, host, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
serve(load_questions(output, task, share=1.0), AnswerStore(output / ANSWERS), bound=bind(host, port), host=host)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(
    output: Path, port: int, task: str = "localize", host: str = "127.0.0.1"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running page: its process and the address it announced."""
    arguments = [str(output), task, host, str(port)]
    process = subprocess.Popen([sys.executable, "-c", SERVE, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield process, address[0]
    finally:
        process.kill()
        process.wait()


def status(port: int, path: str, **headers: str) -> tuple[int, str | None]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("Set-Cookie")


def test_loopback_page_answers_loopback_names_only(tmp_path: Path) -> None:
    output = write_dataset(tmp_path / "dataset")
    item = load_questions(output).items[0]
    port = free_port()
    with served(output, port) as (_, address):
        assert "token" not in address
        assert status(port, "/")[0] == 200
        assert status(port, f"/image/{item.id}")[0] == 200
        assert status(port, "/image/unknown")[0] == 404
        assert status(port, "/", Host="example.org")[0] == 403
        assert status(port, "/", Origin="http://example.org")[0] == 403


def test_page_for_others_needs_the_token(tmp_path: Path) -> None:
    port = free_port()
    with served(write_dataset(tmp_path / "dataset"), port, host="0.0.0.0") as (_, address):
        token = address.partition("token=")[2]
        assert len(token) >= 16
        assert status(port, "/")[0] == 403
        assert status(port, "/?token=wrong")[0] == 403
        assert status(port, "/_nicegui_ws/socket.io/?EIO=4&transport=polling")[0] == 403
        code, cookie = status(port, f"/?token={token}")
        assert code == 303
        assert cookie is not None
        assert "HttpOnly" in cookie
        assert status(port, "/", Cookie=cookie.partition(";")[0])[0] == 200


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def open_page(browser: Any, address: str, person: str, width: int = 1280, height: int = 800) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address)
    page.get_by_label("Your name").fill(person)
    page.get_by_text("Start", exact=True).click()
    page.wait_for_selector("img")
    return page


def wait_for(page: Any, number: int, total: int) -> None:
    page.get_by_text(f"{number} of {total}", exact=True).wait_for()
    page.wait_for_function("() => document.querySelector('img')?.naturalWidth > 0")


def click_at(page: Any, x: float, y: float) -> None:
    """Click the pixel (x, y) of the image, wherever and however large it is shown."""
    image = page.locator("img")
    box = image.bounding_box()
    # Relative to the image, which may still move on the page when text above it arrives.
    image.click(position={"x": (x + 0.5) / WIDTH * box["width"], "y": (y + 0.5) / HEIGHT * box["height"]})


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_ten_items_by_click_and_keyboard_with_the_server_killed_between(
    tmp_path: Path, browser: Any, width: int
) -> None:
    output = write_dataset(tmp_path / "dataset", rows={"test": 10})
    questions = load_questions(output, share=1.0)
    store = AnswerStore(output / ANSWERS)
    port = free_port()
    with served(output, port) as (process, address):
        page = open_page(browser, address, "Ann <b>Müller</b>", width)
        assert page.get_by_text("Ann <b>Müller</b>").count() == 1, "names are text"
        for number, item in enumerate(questions.items[:5], start=1):
            wait_for(page, number, 10)
            assert page.get_by_text(item.texts["description"]).count() == 1
            page.keyboard.press("Enter")
            page.get_by_text("Click the point first").first.wait_for()
            if number == 3:
                page.keyboard.press("c")
                continue
            if number == 2:
                page.keyboard.press("+")
                page.get_by_label("Zoom in").click()
                page.wait_for_function(f"() => document.querySelector('img').clientWidth > {width}")
                page.wait_for_function("() => document.querySelector('.overflow-auto').scrollLeft > 0")
                click_at(page, *ZOOMED)
            else:
                click_at(page, *item.keypoint)
            page.get_by_text("Kept: your point").wait_for()
            if number == 2:
                page.get_by_text("Next", exact=True).click()  # and the keys work on without another click
            elif number < 5:
                page.keyboard.press("ArrowRight")
        process.send_signal(signal.SIGKILL)
        process.wait()
    # A page that waits for its server loads itself again, which would cut off the visit below.
    page.goto("about:blank")
    kept = store.of("localize", "Ann <b>Müller</b>")
    assert len(kept) == 5, "the last answer was on disk before its server was killed"

    with served(output, port):
        page.goto(f"{address}check?person=Ann+%3Cb%3EM%C3%BCller%3C%2Fb%3E")
        for number, item in enumerate(questions.items[5:], start=6):
            wait_for(page, number, 10)
            click_at(page, *item.keypoint)
            page.get_by_text("Kept: your point").wait_for()
            page.keyboard.press("Enter")
        page.get_by_text("All done").wait_for()
        page.keyboard.press("ArrowLeft")
        wait_for(page, 10, 10)
        page.get_by_text("Kept: your point").wait_for()
        page.close()

    answers = store.of("localize", "Ann <b>Müller</b>")
    for number, item in enumerate(questions.items, start=1):
        answer = answers[item.id, item.content]
        if number == 3:
            assert (answer.verdict, answer.x) == ("cannot_tell", None)
            continue
        expected = ZOOMED if number == 2 else item.keypoint
        assert (answer.x, answer.y) == pytest.approx(expected, abs=1.0)
        assert answer.distance == pytest.approx(item.distance(*expected), abs=0.02)
        assert answer.seconds is not None
        assert answer.seconds > 0


@pytest.mark.browser
def test_two_people_at_once_compare_and_describe(tmp_path: Path, browser: Any) -> None:
    output = write_dataset(tmp_path / "dataset", rows={"test": 2})
    store = AnswerStore(output / ANSWERS)
    port = free_port()
    questions = load_questions(output, "compare", share=1.0)
    with served(output, port, "compare") as (_, address):
        pages = {person: open_page(browser, address, person) for person in ("ann", "ben")}
        for number, item in enumerate(questions.items, start=1):
            for person, page in pages.items():
                wait_for(page, number, 2)
                choice = questions.order(item, person).index("description") + 1
                page.keyboard.press(str(choice) if number == 1 else "0")
        for page in pages.values():
            page.get_by_text("All done").wait_for()
    for person in pages:
        answers = store.of("compare", person)
        assert [answers[item.id, item.content].text for item in questions.items] == ["description", None]

    with served(output, port, "describe") as (_, address):
        page = open_page(browser, address, "ann", 390, 844)
        page.get_by_text("Next", exact=True).click()
        page.get_by_text("Write a description first").wait_for()
        page.get_by_label("Your description").fill("At the top of the ear, <script>alert(1)</script> grey")
        page.get_by_text("Next", exact=True).click()
        wait_for(page, 2, 2)
    texts = [answer.text for answer in store.of("describe", "ann").values()]
    assert texts == ["At the top of the ear, <script>alert(1)</script> grey"]
