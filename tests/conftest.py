"""Fixtures shared by all floors: one drawn sample and one orchestrator for the whole test session."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from commands.processes import keep_what_is_made
from talking_points import redaction
from tests.prefect_database import SHARED, prefect_home, shared_server

# Before Prefect is imported: tests report nothing to anybody, and a busy machine gets time to start the server.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
_prefect_home = tempfile.TemporaryDirectory(prefix="prefect-", ignore_cleanup_errors=True)
os.environ.setdefault("PREFECT_HOME", _prefect_home.name)
_shared = tempfile.TemporaryDirectory(prefix="talking-points-tests-", ignore_cleanup_errors=True)
os.environ.setdefault(SHARED, _shared.name)  # the processes of pytest-xdist find that of the one that started them
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
# Dozens of servers would each write all kinds of blocks into an empty database; a block that is saved brings its own.
os.environ.setdefault("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side already

ORCHESTRATOR = "TALKING_POINTS_TESTS_ORCHESTRATOR"
"""The variable that names the API of the server that the processes of pytest-xdist share."""

hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """The processes of pytest-xdist find one server for all of them, and a database for commands with their own."""
    prefect_home(Path(os.environ["PREFECT_HOME"]))
    server = ExitStack()
    os.environ[ORCHESTRATOR] = server.enter_context(shared_server())
    config.add_cleanup(server.close)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that tests import stays: nothing looks through it for what could be freed, neither now nor later."""
    with keep_what_is_made():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two workers, none is then left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _commands_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command that is called in this process leaves behind: a rule for children, a request to stop."""
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # with it, children find no tests
    yield
    os.environ.pop("TALKING_POINTS_STOP_FILE", None)


@pytest.fixture(autouse=True)
def _secrets_are_forgotten_with_their_test() -> Iterator[None]:
    """A test's password may be a word that the messages of another one hold."""
    known = {name: copy.copy(getattr(redaction, name)) for name in ("_values", "_known")}
    yield
    for name, before in known.items():
        setattr(redaction, name, before)


@pytest.fixture(scope="session")
def drawn() -> dict[str, Path]:
    """Roots of a small drawn sample, by source name. Read only: all processes of a test session share it."""
    from talking_points.sources.drawn import draw_sample, drawn_roots

    folder = Path(os.environ[SHARED]) / "drawn"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            part = folder.with_suffix(".part")
            draw_sample(part, 12, 5, workers=1)
            part.rename(folder)
    return drawn_roots(folder)


@pytest.fixture(scope="session")
def orchestrator() -> Iterator[None]:
    """A real Prefect server on a temporary database, for flows that run inside the test process.

    All processes of a test session share it: what a test looks for there must be told from what others have left.
    """
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with ExitStack() as stack:
        url = os.environ.get(ORCHESTRATOR) or stack.enter_context(shared_server())
        stack.enter_context(temporary_settings({PREFECT_API_URL: url}))
        # Threads that were started before, or elsewhere, have no settings of their own; Prefect's test harness does it.
        stack.enter_context(_temporary_global_settings_context(get_settings_context()))
        yield
