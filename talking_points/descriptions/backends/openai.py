"""Any OpenAI-compatible server (``vllm serve``, llama.cpp's server, hosted ones) through an async HTTP client.

All requests of all callers share one bounded set of connections: a caller that waits for its slowest row never keeps
the server idle while another caller has rows ready. Transient failures are repeated with exponential backoff and full
jitter, and a server's ``Retry-After`` is honoured; what cannot succeed is an error of its request alone.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from talking_points.build_config import StepConfig
from talking_points.config import suggest
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.chat import refusal
from talking_points.descriptions.backends.chat_completions import (
    TRANSIENT,
    Retry,
    error_message,
    is_unpaid,
    no_money,
    read_completion,
    read_refusal,
    retry_after,
    with_told_status,
)
from talking_points.descriptions.backends.chat_requests import RequestWriter
from talking_points.descriptions.backends.connection import end_loop, own_loop
from talking_points.descriptions.backends.endpoint import Endpoint, api_key
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)
from talking_points.redaction import redact

ATTEMPTS = 6
"""Tries per request, the first one included; ``options.attempts`` changes it."""
_NAMES, _NAME = 1000, 100
"""Names of models of a server's list that may be suggested, and characters of each."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds: the backoff doubles from the first to the longest; a longer ``Retry-After`` is cut to the longest."""


class OpenAIBackend:
    """Chat completions over HTTP.

    ``config.endpoint`` is the base URL (".../v1"), ``config.model`` the name the server lists. The key is read from
    the variable named by ``config.api_key_env`` and is never stored or shown. ``config.request`` says how a request is
    written; ``config.options`` is merged into every request body, except ``attempts`` and ``schema_as``: how a
    structured answer is asked for, ``json_schema`` (OpenAI, vLLM, llama.cpp's ``llama-server``) or ``json_object`` with
    the schema in it (llama-cpp-python's server).
    """

    capabilities = BACKENDS["openai"].capabilities

    def __init__(self, config: StepConfig, *, key: str | None = None, alive: Callable[[], bool] = lambda: True) -> None:
        """``key`` goes before that of the environment; nothing is asked again of a server that is not ``alive``."""
        self._config = config
        self._alive = alive
        self._attempts = int(config.options.get("attempts", ATTEMPTS))
        self._writer = RequestWriter(config)
        self._endpoint = Endpoint(str(config.endpoint), key or api_key(config.api_key_env))
        self._listed: list[str] = []
        self._clients = [self._endpoint.client(config.timeout)]
        # Last in, first out: connections that are open and warm are used before new ones are opened.
        self._free: asyncio.LifoQueue[httpx.AsyncClient | None] = asyncio.LifoQueue()
        for client in [None] * (config.concurrency - 1) + self._clients:
            self._free.put_nowait(client)
        self._loop = own_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-backend", daemon=True)
        self._thread.start()
        try:
            self._run(self._check_server())
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> Mapping[str, str]:
        """The model as the server names it; the endpoint and the key do not change an answer."""
        return {"backend": "openai", "model": str(self._config.model), "revision": self._config.revision or ""}

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Answer all requests concurrently, in order; may be called from several threads at once."""
        return self._run(self._complete(requests, on_answer))

    def close(self) -> None:
        """Close all connections and stop the client's thread."""
        if self._loop.is_closed():
            return
        for client in self._clients:
            self._run(self._endpoint.close(client))
        end_loop(self._loop, self._thread)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _check_server(self) -> None:
        """The server answers and lists the model, or the message says what to start."""
        try:
            response = await self._endpoint.get(self._clients[0], "models")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._gone(error) from None
        if response.status_code in (401, 403):
            raise self._refuse_access(response)
        try:
            entries = response.json()["data"]
            names = [entry["id"] for entry in entries if isinstance(entry.get("id"), str)]
        except Exception:  # not every server lists its models; the first request will tell
            return
        asked = str(self._config.model)
        self._listed = [name[:_NAME] for name in names[:_NAMES]]
        # Ollama lists a tag that need not be asked for, Gemini a folder.
        if names and not {asked, f"{asked}:latest", f"models/{asked}"} & {*names}:
            raise BackendUnavailable(f"{self._endpoint} does not serve '{asked}': {self._offer()}")

    def _offer(self) -> str:
        """What the server lists, and which of it is likely to be meant."""
        asked = str(self._config.model)
        short = {name.rpartition("/")[2].lower(): name for name in self._listed}
        meant = short.get(asked.rpartition("/")[2].lower())
        if meant is None and len(self._listed) == 1:
            meant = self._listed[0]
        did_you_mean = f"; did you mean '{meant}'?" if meant else suggest(asked, self._listed)
        shown, more = self._listed[:20], len(self._listed) - 20
        return f"it lists {', '.join(shown)}{f' and {more} more' if more > 0 else ''}{did_you_mean}"

    def _gone(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(
            f"no answer from {self._endpoint} ({type(error).__name__}: {redact(str(error))}): expected an "
            f"OpenAI-compatible server, e.g. started by 'vllm serve {self._config.model}'{self._endpoint.proxy_hint()}"
        )

    def _refuse_access(self, response: httpx.Response) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self._endpoint} refuses access (HTTP {response.status_code}): "
            f"set the environment variable {self._config.api_key_env} to a valid key"
        )

    async def _complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None
    ) -> list[Completion | RequestError]:
        async def answer(request: ChatRequest) -> Completion | RequestError:
            result = await self._answer(request)
            if on_answer:
                on_answer(request, result)
            return result

        tasks = [asyncio.create_task(answer(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            # The server is gone: what still waits would only find the same.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _answer(self, request: ChatRequest) -> Completion | RequestError:
        refused = refusal(request, vision=True)
        if refused:
            return refused
        body: bytes | None = None
        for attempt in range(self._attempts):
            try:
                async with self._client() as client:
                    if body is None:
                        # Encoding an image takes milliseconds, in which the loop serves other requests.
                        write = self._writer.body
                        body = await asyncio.to_thread(write, request) if request.images else write(request)
                    return await self._ask(client, body)
            except Retry as retry:
                if not self._alive():
                    raise self._gone(retry) from None
                last = attempt + 1 == self._attempts
                # Waiting happens outside the slot: others go on meanwhile. A server that asks for a pause gets it
                # after the last try too: the caller may ask again for this row.
                if not last or retry.wait is not None:
                    await asyncio.sleep(_delay(attempt, retry.wait))
                if last:
                    return retry.error
            except httpx.ConnectError as error:
                if attempt + 1 == self._attempts or not self._alive():
                    raise self._gone(error) from None
                await asyncio.sleep(_delay(attempt, None))
        raise AssertionError("every attempt returns, repeats or raises")

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        """One of the connections, once one is free: their number is the bound on requests in flight."""
        client = await self._free.get()
        try:
            if client is None:
                client = self._endpoint.client(self._config.timeout)
                self._clients.append(client)
            yield client
        finally:
            self._free.put_nowait(client)

    async def _ask(self, client: httpx.AsyncClient, body: bytes) -> Completion | RequestError:
        """One try. Raises ``Retry`` for what may pass, ``BackendUnavailable`` for what concerns every request."""
        try:
            response = with_told_status(await self._endpoint.post(client, "chat/completions", body))
        except httpx.ConnectError:
            raise
        except httpx.TimeoutException as error:
            detail = f"no answer within {self._config.timeout:g} s ({type(error).__name__})"
            raise Retry(RequestError("timeout", detail, retryable=True)) from error
        except httpx.TransportError as error:
            detail = f"{type(error).__name__}: {redact(str(error))}"
            raise Retry(RequestError("connection_lost", detail, retryable=True)) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError) as error:
            # The response cannot even be taken apart: its encoding, a header or its length is not what it says.
            detail = f"a response that cannot be read ({type(error).__name__}: {redact(str(error))[:120]})"
            raise Retry(RequestError("malformed_response", detail, retryable=True)) from error
        status = response.status_code
        if is_unpaid(response):
            raise no_money(self._endpoint, f"HTTP {status}: {error_message(response)}", self._config.api_key_env)
        if status in TRANSIENT:
            raise Retry(read_refusal(response), retry_after(response))
        if status in (401, 403):
            raise self._refuse_access(response)
        if status == 404:
            offer = f"; {self._offer()}" if self._listed else ""
            raise BackendUnavailable(
                f"{self._endpoint} has no chat completions for '{self._config.model}' ({error_message(response)}): "
                f"expected a base URL such as http://127.0.0.1:8000/v1 and a model that the server lists{offer}"
            )
        if status == 407:
            raise BackendUnavailable(
                f"no answer from {self._endpoint}: a proxy on the way asks for a user and a password (HTTP 407)"
                f"{self._endpoint.proxy_hint()}"
            )
        if status >= 400:
            return read_refusal(response)
        return read_completion(response)


def _delay(attempt: int, wait: float | None) -> float:
    """Seconds before the next try: what the server asks for, else exponential backoff with full jitter."""
    if wait is not None:
        # All that were turned away together must not come back together.
        return min(wait, LONGEST_DELAY) + random.uniform(0, FIRST_DELAY)
    return random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**attempt))
