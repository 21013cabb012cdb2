"""The batch API of a provider: upload a file, create a batch, look at it, fetch its answers, cancel it.

The form is OpenAI's, which other providers and gateways speak too. What may pass is tried again with backoff; that a
batch is never created twice is seen to by looking for it before it is created again.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import httpx

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.chat_completions import TRANSIENT, error_message, retry_after
from talking_points.descriptions.backends.connection import end_loop, own_loop
from talking_points.descriptions.backends.endpoint import Endpoint, api_key
from talking_points.descriptions.backends.protocol import BackendUnavailable
from talking_points.redaction import redact
from talking_points.regular_files import open_regular
from talking_points.stop_requests import stop_if_requested

ATTEMPTS = 6
"""Tries per call, the first one included."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds between them, doubling."""
_FILE_BYTES, _BYTES_PER_ANSWER = 64 << 20, 1 << 20
"""What a file of answers may have: an answer is some thousand bytes, a few are very long."""
_PAGES = 20
"""Pages of a hundred batches that are searched for one that may have been created."""


class Provider:
    """Calls of the batch API below ``config.endpoint``, one after another; close it at the end.

    Every method raises ``BackendUnavailable`` where the server is gone, refuses the key or has no batch API.
    """

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        self._endpoint = Endpoint(str(config.endpoint), api_key(config.api_key_env))
        self._client = self._endpoint.client(max(config.timeout, 60.0))
        self._loop = own_loop()
        # Tasks of a build may run where a loop runs already.
        self._thread = threading.Thread(target=self._loop.run_forever, name="batch-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Provider:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._client.aclose())
        end_loop(self._loop, self._thread)

    def upload(self, path: Path, name: str) -> str:
        """The id under which the provider keeps the file."""

        async def call() -> httpx.Response:
            with open_regular(path) as stream:
                return await self._endpoint.send(
                    self._client,
                    "POST",
                    "files",
                    data={"purpose": "batch"},
                    files={"file": (name, stream, "application/jsonl")},
                )

        return self._id_in(self._call(call, "files"), "files")

    def create(self, file_id: str, mark: str) -> str:
        """Create a batch of an uploaded file, or find the one that an earlier call has created; its id.

        ``mark`` is kept with the batch at the provider. Where nothing tells whether the batch was created, as after a
        lost connection, it is looked for before it is created again.
        """
        batch = self._config.batch
        assert batch is not None
        body = {
            "input_file_id": file_id,
            "endpoint": batch.url,
            "completion_window": batch.completion_window,
            "metadata": {"talking_points": mark},
        }

        async def call() -> httpx.Response:
            return await self._endpoint.send(self._client, "POST", "batches", json=body)

        found: list[str | None] = []

        def look() -> bool:
            found[:] = [self.find(file_id, mark)]
            return found[0] is not None

        # A file that was uploaded a moment ago is not known everywhere yet.
        response = self._call(call, "batches", done_already=look, passing=file_id)
        return found[0] if response is None and found[0] else self._id_in(response, "batches")

    def find(self, file_id: str, mark: str) -> str | None:
        """The id of the batch that was created with ``mark`` or of this file, if there is one."""
        after: dict[str, str] = {}
        for _ in range(_PAGES):
            params = {"limit": "100", **after}

            async def call(params: dict[str, str] = params) -> httpx.Response:
                return await self._endpoint.send(self._client, "GET", "batches", params=params)

            page = self._json(self._call(call, "batches"))
            listed = page.get("data")
            entries = [
                entry
                for entry in (listed if isinstance(listed, list) else [])
                if isinstance(entry, Mapping) and isinstance(entry.get("id"), str)
            ]
            for entry in entries:
                metadata = entry.get("metadata")
                marked = isinstance(metadata, Mapping) and metadata.get("talking_points") == mark
                if marked or (file_id and entry.get("input_file_id") == file_id):
                    return str(entry["id"])
            if not page.get("has_more") or not entries:
                return None
            after = {"after": str(entries[-1]["id"])}
        return None

    def look(self, batch_id: str) -> Mapping[str, Any] | None:
        """The batch as the provider describes it; None where it knows it no more."""

        async def call() -> httpx.Response:
            return await self._endpoint.send(self._client, "GET", f"batches/{batch_id}")

        response = self._call(call, "batches", missing=True)
        return None if response is None else self._json(response)

    def fetch(self, file_id: str, path: Path, requests: int) -> bool:
        """Write the file of answers to so many requests; False where the provider has it no more."""
        most = _FILE_BYTES + requests * _BYTES_PER_ANSWER

        async def call() -> httpx.Response:
            return await self._endpoint.download(self._client, f"files/{file_id}/content", path, most)

        return self._call(call, "files", missing=True) is not None

    def cancel(self, batch_id: str) -> None:
        """Ask for a batch to be cancelled; what was answered is kept by the provider."""

        async def call() -> httpx.Response:
            return await self._endpoint.send(self._client, "POST", f"batches/{batch_id}/cancel")

        self._call(call, "batches", missing=True, attempts=2, refused_too=True)

    def _call(
        self,
        call: Callable[[], Coroutine[Any, Any, httpx.Response]],
        name: str,
        *,
        missing: bool = False,
        done_already: Callable[[], bool] | None = None,
        attempts: int = ATTEMPTS,
        refused_too: bool = False,
        passing: str | None = None,
    ) -> httpx.Response | None:
        """A response below 400. None for a 404 that is expected, and where ``done_already`` says so before a further
        try, and for a refusal that does not matter. One that names ``passing`` is tried again.
        """
        for attempt in range(attempts):
            if attempt and done_already is not None and done_already():
                return None
            wait = None
            try:
                response: httpx.Response = self._run(call())
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError) as error:
                told = f"{type(error).__name__}: {redact(str(error))}"
            else:
                if response.status_code < 400:
                    return response
                told = f"HTTP {response.status_code}: {error_message(response)}"
                if response.status_code == 404 and missing:
                    return None
                if response.status_code not in TRANSIENT and not (passing and passing in told):
                    if refused_too:
                        return None
                    raise self._refused(response.status_code, name, told)
                wait = retry_after(response)
            if attempt + 1 < attempts:
                pause(min(wait, LONGEST_DELAY) if wait is not None else _delay(attempt))
        if refused_too:
            return None
        raise BackendUnavailable(
            f"no answer from {self._endpoint}/{name} in {attempts} tries ({told}){self._endpoint.proxy_hint()}: what "
            "was submitted is kept, so run again once the server answers"
        )

    def _refused(self, status: int, name: str, told: str) -> BackendUnavailable:
        if status in (401, 403):
            return BackendUnavailable(
                f"{self._endpoint} refuses access (HTTP {status}): set the environment variable "
                f"{self._config.api_key_env} to a valid key"
            )
        if status in (404, 405, 501):
            return BackendUnavailable(
                f"{self._endpoint}/{name} is not there ({told}): expected a server with the batch API of OpenAI; for "
                "one without it set .batch=false, or .batch.offline=true to run the files by yourself"
            )
        return BackendUnavailable(f"{self._endpoint}/{name} refuses the request ({told})")

    def _json(self, response: httpx.Response | None) -> Mapping[str, Any]:
        try:
            value = response.json() if response is not None else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, Mapping):
            raise BackendUnavailable(
                f"{self._endpoint} answers with something that is no JSON object: check the endpoint"
            )
        return value

    def _id_in(self, response: httpx.Response | None, name: str) -> str:
        found = self._json(response).get("id")
        if not isinstance(found, str) or not found:
            raise BackendUnavailable(f"{self._endpoint}/{name} gives no id: expected a server with OpenAI's batch API")
        return found

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _delay(attempt: int) -> float:
    return random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**attempt))


def pause(seconds: float) -> None:
    """Sleep, unless the build is asked to stop."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop_if_requested()
        time.sleep(min(left, 0.2))
