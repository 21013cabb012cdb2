"""Retry in the browser: the shards that failed and what depends on them run again, nothing else."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flows.building import overrides, published
from tests.flows.serving import REPOSITORY, Served, executions, project, served

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = ("limit=12", "shard_size=2")
FAILING = ("generate-1", "generate-2", "generate-5")


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page of a real headless Chromium, or a skipped test."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser.new_page(viewport={"width": 1400, "height": 1000})
        finally:
            browser.close()


def sign_in(page: Any, prefect: Served) -> None:
    """As a person does: open the page, paste the password that the server printed, see the runs."""
    page.goto(prefect.url)
    page.get_by_placeholder("admin:pass").fill(prefect.password)
    page.get_by_role("button", name="Login").click()
    page.get_by_text("Flow Runs").first.wait_for()


def test_retry_in_the_browser_makes_the_failed_shards_and_nothing_else(drawn: dict[str, Path], tmp_path: Path) -> None:
    home, state, output = project(tmp_path / "home"), tmp_path / "state", tmp_path / "out"
    log, broken = tmp_path / "executions", tmp_path / "broken"
    broken.write_text("\n".join(FAILING))
    environment = {"EXECUTIONS": str(log), "BROKEN": str(broken)}
    screenshots = REPOSITORY / "build" / "screenshots"

    with browser_page() as page:
        with served(home, state, **environment) as prefect:
            run = prefect.trigger(*overrides(output, drawn, *SETTINGS))
            failed = prefect.wait(run, "FAILED", "CRASHED", "COMPLETED")
            assert failed["type"] == "FAILED", failed
            assert "3 shard(s) failed: generate-1, generate-2, generate-5" in failed["message"]
            tables = prefect.call("POST", "artifacts/filter", artifacts={"key": {"any_": ["failed-shards"]}})
            assert all(name.split("-")[0] in tables[0]["data"] for name in FAILING)

        # The server and the worker are started anew: the retry finds all it needs on disk.
        first = executions(log)
        assert sum(key.startswith("generate-") for key in first) == 6
        broken.unlink()
        with served(home, state, **environment) as prefect:
            sign_in(page, prefect)
            page.goto(f"{prefect.url}/runs/flow-run/{run}")
            page.get_by_role("button", name="Retry").first.click()
            page.get_by_role("dialog").get_by_role("button", name="Retry").click()
            page.get_by_role("dialog").wait_for(state="hidden")
            page.goto("about:blank")  # a page that draws what a run does takes as much as the run
            done = prefect.wait(run, "COMPLETED", "CRASHED")
            assert done["type"] == "COMPLETED", done
            page.goto(f"{prefect.url}/runs/flow-run/{run}")
            page.get_by_text("Completed").first.wait_for()
            page.wait_for_timeout(2000)
            screenshots.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(screenshots / "ui-retry.png"))
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 850})
                page.wait_for_timeout(500)
                page.screenshot(path=str(screenshots / f"run-page-{width}.png"))
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
            deployment = prefect.call("GET", "deployments/name/build-llamapointinpart/build-llamapointinpart")
            page.goto(f"{prefect.url}/deployments/deployment/{deployment['id']}/run")
            for field in (
                "a shipped configuration instead",
                "folder or URL that the dataset",
                "folder of PartImageNet",
            ):
                page.get_by_text(field).first.wait_for()
            page.screenshot(path=str(screenshots / "run-form.png"), full_page=True)
            page.goto("about:blank")
            runs = prefect.call("POST", "task_runs/filter", flow_runs={"id": {"any_": [run]}})
            again = executions(log)[len(first) :]

            # The records are there, but not the files of another output: everything is made, and comes out the same.
            reference = prefect.trigger(*overrides(tmp_path / "reference", drawn, *SETTINGS))
            assert prefect.wait(reference, "COMPLETED", "CRASHED", "FAILED")["type"] == "COMPLETED"

    stages = ("generate", "refine", "verify")
    expected = {f"{stage}-{name.split('-')[1]}" for name in FAILING for stage in stages}
    assert Counter(again) == Counter([*expected, "assemble-0"])
    shown = Counter(task["name"].split()[0] for task in runs)
    assert shown["object_caption"] == shown["local_caption"] == 6, "what is reused is not shown once more"
    assert shown["generate"] == 6 + len(FAILING)
    assert published(output) == published(tmp_path / "reference")
