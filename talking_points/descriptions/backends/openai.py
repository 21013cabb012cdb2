"""Any OpenAI-compatible server (``vllm serve``, llama.cpp's server, hosted ones) through an async HTTP client.

All requests of all callers share one bounded set of connections: a caller that waits for its slowest row never keeps
the server idle while another caller has rows ready. Transient failures are repeated with exponential backoff and full
jitter, and a server's ``Retry-After`` is honoured; what cannot succeed is an error of its request alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.chat import messages, refusal
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    ChatRequest,
    Completion,
    FinishReason,
    OnAnswer,
    RequestError,
)

ATTEMPTS = 6
"""Tries per request, the first one included; ``options.attempts`` changes it."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds: the backoff doubles from the first to the longest; a longer ``Retry-After`` is cut to the longest."""

_TRANSIENT = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_FINISHED: dict[str | None, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    None: "stop",
    "length": "length",
    "content_filter": "content_filter",
}
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|too (?:long|many tokens)|maximum .{0,40}tokens", re.IGNORECASE
)


class _Retry(Exception):
    """A failure worth another try: what it becomes when the tries are used up, and how long the server asks to wait."""

    def __init__(self, error: RequestError, wait: float | None = None) -> None:
        super().__init__(error.reason)
        self.error = error
        self.wait = wait


class OpenAIBackend:
    """Chat completions over HTTP.

    ``config.endpoint`` is the base URL (".../v1"), ``config.model`` the name the server lists. The key is read from
    the variable named by ``config.api_key_env`` and is never stored or shown. ``config.options`` is merged into every
    request body, except ``attempts`` and ``schema_as``: how a structured answer is asked for, ``json_schema`` (OpenAI,
    vLLM, llama.cpp's ``llama-server``) or ``json_object`` with the schema in it (llama-cpp-python's server).
    """

    capabilities = BACKENDS["openai"].capabilities

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        self._body = dict(config.options)
        self._attempts = int(self._body.pop("attempts", ATTEMPTS))
        self._schema_as = str(self._body.pop("schema_as", "json_schema"))
        if self._schema_as not in ("json_schema", "json_object"):
            raise BackendUnavailable(
                f"options.schema_as: expected 'json_schema' or 'json_object', found '{self._schema_as}'"
            )
        key = os.environ.get(config.api_key_env)
        self._client = httpx.AsyncClient(
            base_url=str(config.endpoint).rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(config.timeout, connect=min(10.0, config.timeout), pool=None),
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
        )
        self._slots = asyncio.Semaphore(config.concurrency)
        self._loop = asyncio.new_event_loop()
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
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _check_server(self) -> None:
        """The server answers and lists the model, or the message says what to start."""
        try:
            response = await self._client.get("models")
        except httpx.HTTPError as error:
            raise self._gone(error) from error
        if response.status_code in (401, 403):
            raise self._unauthorized(response)
        try:
            names = [model["id"] for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return  # not every server lists its models; the first request will tell
        if names and self._config.model not in names:
            where, listed = self._config.endpoint, ", ".join(names)
            raise BackendUnavailable(f"{where} does not serve '{self._config.model}': it lists {listed}")

    def _gone(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(
            f"no answer from {self._config.endpoint} ({type(error).__name__}: {error}): expected an OpenAI-compatible "
            f"server, e.g. started by 'vllm serve {self._config.model}'"
        )

    def _unauthorized(self, response: httpx.Response) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self._config.endpoint} refuses access (HTTP {response.status_code}): "
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
        for attempt in range(self._attempts):
            try:
                async with self._slots:
                    return await self._ask(request)
            except _Retry as retry:
                last = attempt + 1 == self._attempts
                # Waiting happens outside the slot: others go on meanwhile. A server that asks for a pause gets it
                # after the last try too: the caller may ask again for this row.
                if not last or retry.wait is not None:
                    await asyncio.sleep(_delay(attempt, retry.wait))
                if last:
                    return retry.error
            except httpx.ConnectError as error:
                if attempt + 1 == self._attempts:
                    raise self._gone(error) from error
                await asyncio.sleep(_delay(attempt, None))
        raise AssertionError("every attempt returns, repeats or raises")

    async def _ask(self, request: ChatRequest) -> Completion | RequestError:
        """One try. Raises ``_Retry`` for what may pass, ``BackendUnavailable`` for what concerns every request."""
        try:
            response = await self._client.post("chat/completions", json=self._payload(request))
        except httpx.ConnectError:
            raise
        except httpx.TimeoutException as error:
            detail = f"no answer within {self._config.timeout:g} s ({type(error).__name__})"
            raise _Retry(RequestError("timeout", detail, retryable=True)) from error
        except httpx.TransportError as error:
            raise _Retry(RequestError("connection_lost", f"{type(error).__name__}: {error}", retryable=True)) from error
        status = response.status_code
        if status in _TRANSIENT:
            reason = "rate_limited" if status == 429 else "server_error"
            detail = f"HTTP {status}: {_message(response)}"
            raise _Retry(RequestError(reason, detail, retryable=True), _retry_after(response))
        if status in (401, 403):
            raise self._unauthorized(response)
        if status == 404:
            raise BackendUnavailable(
                f"{self._config.endpoint} has no chat completions for '{self._config.model}' ({_message(response)}): "
                "expected a base URL such as http://127.0.0.1:8000/v1 and a model that the server lists"
            )
        if status >= 400:
            message = _message(response)
            return RequestError("too_long" if _TOO_LONG.search(message) else "bad_request", f"HTTP {status}: {message}")
        return _completion(response)

    def _payload(self, request: ChatRequest) -> dict[str, Any]:
        payload = {
            "model": self._config.model,
            "messages": messages(request),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            **self._body,
        }
        if request.schema is not None:
            schema = dict(request.schema)
            if self._schema_as == "json_schema":
                named = {"name": "answer", "strict": True, "schema": schema}
                payload["response_format"] = {"type": "json_schema", "json_schema": named}
            else:
                payload["response_format"] = {"type": "json_object", "schema": schema}
        return payload


def _completion(response: httpx.Response) -> Completion | RequestError:
    """The first choice of a successful response; a body that is not one is worth another try."""
    try:
        body = response.json()
        choice = body["choices"][0]
        text, refused = choice["message"].get("content"), choice["message"].get("refusal")
        finish = choice.get("finish_reason")
        usage = body.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        detail = f"expected a chat completion, found {response.text[:120]!r}"
        raise _Retry(RequestError("malformed_response", detail, retryable=True)) from error
    if refused:
        return Completion(str(refused), "content_filter", *tokens)
    if finish not in _FINISHED:
        return RequestError("unexpected_finish", f"the server ended the answer with '{finish}'")
    return Completion(text if isinstance(text, str) else "", _FINISHED[finish], *tokens)


def _message(response: httpx.Response) -> str:
    """The error message of a response in any of the usual shapes, shortened."""
    try:
        body = response.json()
        error = body.get("error", body)
        message = error.get("message") or error.get("detail") or error if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = response.text
    return " ".join(str(message).split())[:300]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _delay(attempt: int, wait: float | None) -> float:
    """Seconds before the next try: what the server asks for, else exponential backoff with full jitter."""
    if wait is not None:
        # All that were turned away together must not come back together.
        return min(wait, LONGEST_DELAY) + random.uniform(0, FIRST_DELAY)
    return random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**attempt))
