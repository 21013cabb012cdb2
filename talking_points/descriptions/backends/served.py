"""Models behind a server that the build itself starts, from an environment of its own: vLLM's, or llama.cpp's.

The server is there while its step runs, and ends before the next model is loaded. Where it crashes it is started
again; what it had not answered is asked for once more, and answers that were given are in the request cache.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.managed_server import ManagedServer
from talking_points.descriptions.backends.openai import OpenAIBackend
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)
from talking_points.descriptions.backends.server_command import wants_schema_as

Answer = Completion | RequestError
_TRIES = 2
"""Times that a request is given to a server; one that was there at two crashes may be their cause."""


class _Running(NamedTuple):
    server: ManagedServer
    client: OpenAIBackend


class ServedBackend:
    """Starts the server of ``config.model`` and asks it. ``logs`` is the folder of its log."""

    def __init__(self, config: StepConfig, logs: Path) -> None:
        self._config = config
        self.capabilities = BACKENDS[config.backend].capabilities
        name = re.sub(r"[^\w.-]+", "-", str(config.model)).strip("-")
        self._log = logs / f"{config.backend}-{name[-80:]}.log"
        self._lock = threading.Lock()
        self._lost: list[_Running] = []
        self._restarts = 0
        self._failed: BackendUnavailable | None = None
        self._running = self._start()

    @property
    def identity(self) -> Mapping[str, str]:
        """Model, revision, and the version of the engine where its server tells it."""
        return {
            "backend": self._config.backend,
            "model": str(self._config.model),
            "revision": self._config.revision or "",
            "engine": self._running.server.version,
        }

    def complete(self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None) -> list[Answer]:
        """Answer all requests, in order; may be called from several threads at once.

        A request that was being answered at two crashes is an error of its row. Raises ``BackendUnavailable`` with the
        end of the log when the server crashes more often than ``server.restarts``, or does not come back.
        """
        answers: dict[str, Answer] = {}
        tries: Counter[str] = Counter()

        def keep(request: ChatRequest, answer: Answer) -> None:
            answers[request.id] = answer
            if on_answer:
                on_answer(request, answer)

        while missing := [request for request in requests if request.id not in answers]:
            running = self._current()
            tries.update(request.id for request in missing)
            try:
                for request, answer in zip(missing, running.client.complete(missing, keep), strict=True):
                    answers.setdefault(request.id, answer)
            except BackendUnavailable as error:
                if not running.server.is_lost():
                    raise BackendUnavailable(f"{error}{running.server.told()}") from None
                self._recover(running)
                for request in missing:
                    if request.id not in answers and tries[request.id] >= _TRIES:
                        detail = "the model's server crashed twice while this request was being answered"
                        keep(request, RequestError("server_crashed", detail))
        return [answers[request.id] for request in requests]

    def close(self) -> None:
        """End the server, which frees its memory, and the connections to it."""
        with self._lock:
            self._failed = self._failed or BackendUnavailable("the server of this step was ended")
            for running in (*self._lost, self._running):
                running.client.close()
                running.server.stop()

    def _start(self) -> _Running:
        server = ManagedServer(self._config, self._log)
        server.start()
        # The engine's options went to the server; what is left of the step is how it is asked.
        options = {"schema_as": wants_schema_as(self._config)}
        changes = {"backend": "openai", "endpoint": server.url, "options": options}
        try:
            client = OpenAIBackend(self._config.model_copy(update=changes), key=server.key, alive=lambda: server.alive)
        except BaseException as error:
            server.stop()
            if isinstance(error, BackendUnavailable):
                raise BackendUnavailable(f"{error}{server.told()}") from None
            raise
        return _Running(server, client)

    def _current(self) -> _Running:
        with self._lock:
            if self._failed:
                raise self._failed
            return self._running

    def _recover(self, lost: _Running) -> None:
        """Start the server again, once for all threads that lost the same one."""
        with self._lock:
            if self._failed:
                raise self._failed
            if lost is not self._running:
                return
            told = lost.server.told()
            lost.server.stop()
            self._restarts += 1
            try:
                if self._restarts > self._config.server.restarts:
                    raise BackendUnavailable(
                        f"the server of {self._config.model} crashed {self._restarts} times (server.restarts: "
                        f"{self._config.server.restarts}){told}"
                    )
                self._running = self._start()
            except BackendUnavailable as error:
                self._failed = error
                raise
            # Other threads may still be in calls to it, which end soon.
            self._lost.append(lost)


def open_served(config: StepConfig, logs: Path | None = None) -> ServedBackend:
    """Start the server of a step; its log goes into ``logs``, by default into the user's cache."""
    return ServedBackend(config, logs or Path.home() / ".cache" / "talking-points" / "servers")
