"""A model server that this process starts, waits for, and ends: on a free port of this machine, for one model."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.answer_limits import look
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.descriptions.backends.server_command import server_command, server_environment
from talking_points.models.gguf_header import check_gguf
from talking_points.redaction import protect, redact
from talking_points.regular_files import open_regular
from talking_points.stop_requests import stop_if_requested

HOST = "127.0.0.1"
PORTS = 3
"""Ports that are tried, where another program takes one between the look and the server's start."""
_LOOK_EVERY, _LOOK = 0.1, 5.0
"""Seconds between two looks at a server, and that one may take."""
_PATIENCE = 10.0
"""Seconds that a server gets to end by itself."""
_TAIL, _TAIL_BYTES = 12, 65_536
"""Lines of a log that an error shows, and the bytes at its end among which they are looked for."""
_CAUSE, _CAUSES = re.compile(r"(?:^|[\]\s])((?:\w+\.)*\w*(?:Error|Exception): \S.{0,300})"), 4
_TAKEN = ("address already in use", "eaddrinuse", "couldn't bind", "error while attempting to bind")


class ManagedServer:
    """One running server. ``url`` is its base URL (".../v1"), ``key`` what its requests must carry.

    Its process ends when ``stop`` is called, and with this process, however that ends.
    """

    def __init__(self, step: StepConfig, log: Path) -> None:
        self._step = step
        self.log = log
        self.key = secrets.token_urlsafe(24)
        protect(self.key)
        self.url = ""
        self.version = ""
        self._guard: subprocess.Popen[bytes] | None = None
        self._headers = {"Authorization": f"Bearer {self.key}"}

    def start(self) -> None:
        """Start it, wait until it answers. Raises ``BackendUnavailable``, with the end of its log, if it does not, and
        ``InputError`` for a model that is a damaged GGUF file.
        """
        if str(self._step.model).endswith(".gguf") and Path(str(self._step.model)).exists():
            check_gguf(str(self._step.model))
        for attempt in range(PORTS):
            port = _free_port()
            root = f"http://{HOST}:{port}"
            self._launch(port)
            try:
                if self._ready(root):
                    self.url = f"{root}/v1"
                    return
            except BaseException:
                self.stop()
                raise
            if attempt + 1 == PORTS or not any(
                words in "\n".join(self._last_lines()[-_TAIL:]).lower() for words in _TAKEN
            ):
                break
        code = self._guard.wait() if self._guard else None
        raise BackendUnavailable(
            f"the server of {self._step.model} ended (exit code {code}) before it was ready{self.told()}"
        )

    @property
    def alive(self) -> bool:
        """Whether its process is running."""
        return self._guard is not None and self._guard.poll() is None

    def is_lost(self) -> bool:
        """Whether it has ended, ends now, or has stopped answering for good; waits seconds to tell.

        vLLM whose engine has died closes its port first and takes seconds to end.
        """
        deadline = time.monotonic() + _PATIENCE
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                # Another program may have taken the port since: it does not know the key.
                if look(f"{self.url}/models", self._headers, _LOOK).is_success:
                    return False
            time.sleep(_LOOK_EVERY)
        return True

    def stop(self) -> None:
        """End it, with all that it started, and wait until its memory is free."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        with contextlib.suppress(OSError):
            guard.stdin.close()
        try:
            guard.wait(_PATIENCE + 10)
        except subprocess.TimeoutExpired:
            guard.kill()  # the kernel ends the server with it
            guard.wait()

    def told(self) -> str:
        """What went wrong first in its log, and the end of it, to be added to an error."""
        lines = self._last_lines()
        if not lines:
            return f"; its log is {self.log}"
        began = max((place for place, line in enumerate(lines) if line.startswith("started: ")), default=0)
        tail = lines[began:][-_TAIL:]
        # The end tells what an error led to; what it was is often hundreds of lines above.
        causes = list(dict.fromkeys(found[1] for line in lines[began:-_TAIL] if (found := _CAUSE.search(line))))[
            :_CAUSES
        ]
        named = f"; errors in its log {self.log}:\n  " + "\n  ".join(causes) if causes else ""
        return f"{named}; the log {self.log} ends with:\n  " + "\n  ".join(tail)

    def _launch(self, port: int) -> None:
        name = f"talking-points-{uuid.uuid4().hex[:12]}"
        command = server_command(self._step, HOST, port, name)
        stop = [word.replace("{name}", name) for word in self._step.server.stop_command]
        environment = server_environment(self._step, self.key)
        # The key stays out of the log by its value, which the guard protects by the variable's name.
        guard = [sys.executable, "-P", "-m", "talking_points.server_guard", str(self.log), str(_PATIENCE)]
        self._guard = subprocess.Popen(
            [*guard, *_stopping(stop), *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is the build's to handle
        )

    def _ready(self, root: str) -> bool:
        """True once it lists its models; False when it has ended. Raises when it takes longer than configured."""
        seconds = self._step.server.startup_seconds
        deadline = time.monotonic() + seconds
        while self.alive:
            stop_if_requested()
            if self._answers(root):
                return self.alive
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    f"the server of {self._step.model} was not ready after {seconds:g} s: set server.startup_seconds "
                    f"if it only needs longer{self.told()}"
                )
            time.sleep(_LOOK_EVERY)
        return False

    def _answers(self, root: str) -> bool:
        """Whether the server is ready. Raises ``BackendUnavailable`` for one that is not the one that was started."""
        try:
            if look(f"{root}/v1/models", self._headers, _LOOK).status_code != 200:
                return False  # a server that still loads its model says so
            # One that was here before, or came between, does not know the key that this one asks for.
            if look(f"{root}/v1/models", {}, _LOOK).status_code not in (401, 403):
                raise BackendUnavailable(
                    f"the server at {root} answers without the key that {self._step.model} was started with: another "
                    f"program has taken its port, or its command does not pass on VLLM_API_KEY{self.told()}"
                )
            self.version = self._read_version(root)
        except httpx.HTTPError:
            return False
        return True

    def _read_version(self, root: str) -> str:
        """The engine's version where it tells one (vLLM: ``/version``)."""
        try:
            answer: Any = look(f"{root}/version", self._headers, _LOOK).json()
            return str(answer.get("version", ""))[:80]
        except (httpx.HTTPError, ValueError, AttributeError, RecursionError):
            return ""

    def _last_lines(self) -> list[str]:
        try:
            with open_regular(self.log) as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                lines = stream.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return [redact(line) for line in lines]


def _stopping(command: list[str]) -> list[str]:
    """The words with which the guard is told what ends a container."""
    return [f"--stop={word}" for word in command]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
    return port
