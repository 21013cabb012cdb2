"""SIGKILL at random moments: nothing finished is made or paid for twice, and no byte of the result differs."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, overrides, published
from tests.flows.serving import executions
from tests.patience import patient
from tests.prefect_database import prefect_home
from tests.soak import repeats

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

KILLS, WORKERS, SEED = repeats(8, 30), 2, 7
STORED_WITHIN = 2.0
"""Seconds after which an answer that left the server counts as one that the build has."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.flows.logged_build"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Prefect server that outlives the builds that are killed: the URL of its API, and its password."""
    from commands.orchestrator import PASSWORD, running_server

    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = prefect_home(tmp_path_factory.mktemp("prefect"))
    with running_server() as url:
        if before is None:
            del os.environ["PREFECT_HOME"]
        else:
            os.environ["PREFECT_HOME"] = before
        yield url, os.environ.pop(PASSWORD)


def run_build(server: tuple[str, str], folder: Path, given: list[str]) -> None:
    """What a killed process does: build into ``folder / "out"``, with its records and its log beside it."""
    url, password = server
    os.environ["EXECUTIONS"] = str(folder / "executions")
    from prefect.settings import PREFECT_API_AUTH_STRING as PASSWORD
    from prefect.settings import PREFECT_API_URL, PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

    from tests.flows.logged_build import build_llamapointinpart

    with temporary_settings(
        {PREFECT_API_URL: url, PASSWORD: password, PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder / "results"}
    ):
        build_llamapointinpart(CONFIG, given)


def log_lines(folder: Path) -> int:
    log = folder / "executions"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_kills_lose_nothing_repeat_nothing_and_change_nothing(
    server: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from talking_points.sources.drawn import draw_sample

    roots = draw_sample(tmp_path_factory.mktemp("images"), repeats(24, 60), 3, workers=2)
    draw = random.Random(SEED)
    kills: list[float] = []
    with serving(FaultServer(delay=0.03)) as model:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', concurrency: 4}}"
        settings = ("shard_size=8", f"workers={WORKERS}", step)

        reference = tmp_path_factory.mktemp("reference")
        whole = _forks.Process(
            target=run_build, args=(server, reference, overrides(reference / "out", roots, *settings))
        )
        whole.start()
        whole.join()
        assert whole.exitcode == 0
        answers = Counter(seen.seed for seen in model.seen)
        assert answers
        assert set(answers.values()) == {1}
        model.seen.clear()

        killed = tmp_path_factory.mktemp("killed")
        arguments = (server, killed, overrides(killed / "out", roots, *settings))
        while len(kills) < KILLS:
            process = _forks.Process(target=run_build, args=arguments)
            process.start()
            # So many lines of the log into the run, and a moment more: anywhere in a shard, or between two.
            stop_at = log_lines(killed) + draw.randint(1, 9)
            while process.is_alive() and log_lines(killed) < stop_at:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.4))
            assert process.is_alive(), f"the build ended before kill {len(kills) + 1}: make it longer"
            process.kill()
            process.join()
            kills.append(time.monotonic())
        last = _forks.Process(target=run_build, args=arguments)
        last.start()
        last.join()
        assert last.exitcode == 0

    assert published(killed / "out") == published(reference / "out")
    made = Counter(executions(killed / "executions"))
    once = Counter(executions(reference / "executions"))
    assert set(made) == set(once)
    assert len(once) >= repeats(16, 40)
    assert made.total() - once.total() <= KILLS * WORKERS
    assert set(answers) == {seen.seed for seen in model.seen}
    stored_within = patient(STORED_WITHIN)
    for seed in answers:
        times = sorted(seen.answered for seen in model.seen if seen.seed == seed)
        for answered in times[:-1]:
            kill = min(moment for moment in kills if moment > answered)
            assert kill - answered < stored_within, "an answer that was there was asked for again"
    assert not list((killed / "out").rglob("*.part"))
