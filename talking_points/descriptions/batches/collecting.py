"""Reading what a batch gave back: lines in any order, of which every one may be damaged, missing or there twice."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from talking_points.descriptions.backends.chat_completions import (
    UNPAID,
    Retry,
    read_completion,
    read_refusal,
    says_unpaid,
)
from talking_points.descriptions.backends.protocol import Completion, RequestError
from talking_points.escaping import encodable
from talking_points.regular_files import open_regular

_LOG = logging.getLogger(__name__)
LONGEST_LINE = 16 * 2**20
"""Bytes of one answer that are read; longer ones are passed over."""
_FINAL = frozenset(
    (
        *("invalid_request", "invalid_request_error", "badrequesterror", "content_filter", "unsupported_value"),
        *("400", "404", "413", "422"),
    )
)
"""Codes of errors that the same request would meet again."""


def read_answers(path: Path, expected: Collection[str]) -> Iterator[tuple[str, Completion | RequestError]]:
    """Key and outcome of every request of ``expected`` that a file answers, the first time it does.

    Lines that are no answer, name no expected request or repeat one are passed over and counted in the log.
    """
    seen: set[str] = set()
    odd = strange = repeated = 0
    for line in _lines(path):
        try:
            value = json.loads(line) if line is not None else None
        except (ValueError, RecursionError):
            value = None
        key = value.get("custom_id") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(key, str):
            odd += 1
        elif key not in expected:
            strange += 1
        elif key in seen:
            repeated += 1
        else:
            seen.add(key)
            yield key, _read(value)
    if odd or strange or repeated:
        told = "%s: %d lines are no answers, %d answer other requests, %d answer one again; all are passed over"
        _LOG.warning(told, path, odd, strange, repeated)


def _read(line: Mapping[str, Any]) -> Completion | RequestError:
    try:
        return read_answer(line)
    except Exception as error:  # nested without end, or odd in another way: it costs its own request
        return RequestError(
            "malformed_response", f"an answer that cannot be read ({type(error).__name__})", retryable=True
        )


def read_answer(line: Mapping[str, Any]) -> Completion | RequestError:
    """The outcome in one line of a batch's output or error file."""
    response = line.get("response")
    if not isinstance(response, Mapping):
        return _error(line.get("error"))
    status = response.get("status_code") or 200
    if not isinstance(status, int) or not 100 <= status < 600:
        return RequestError("malformed_response", f"a status of {str(status)[:40]!r}", retryable=True)
    body = response.get("body")
    if body is None and "choices" in response:  # without the frame of a response
        body = response
    if body is None and line.get("error"):
        if not 400 <= status < 500:
            return _error(line["error"])
        body = line["error"]  # vLLM's runner tells the reason there, not in the response
    # As it came: halves of characters and NaN, which Python reads, are told by those who read single answers.
    # Some write it as text within the text.
    content = body if isinstance(body, str) and body.lstrip().startswith("{") else json.dumps(body)
    answer = httpx.Response(status, content=content.encode(errors="replace"))
    if status >= 400:
        return read_refusal(answer)
    try:
        return read_completion(answer)
    except Retry as failed:
        return failed.error


def _error(error: Any) -> RequestError:
    if isinstance(error, Mapping) and isinstance(error.get("error"), Mapping):
        error = error["error"]
    if not isinstance(error, Mapping):
        return RequestError("malformed_response", "a line without an answer and without an error", retryable=True)
    code, message = (encodable(str(error.get(name) or ""))[:300] for name in ("code", "message"))
    code = code or encodable(str(error.get("type") or ""))[:300]
    reason = UNPAID if says_unpaid(error) else "batch_expired" if code == "batch_expired" else "batch_error"
    detail = ": ".join(text for text in (code, " ".join(message.split())) if text)
    return RequestError(reason, detail or "the provider gives no reason", retryable=code.lower() not in _FINAL)


def _lines(path: Path) -> Iterator[bytes | None]:
    """Lines of a file that may be larger than the memory; None for one that is too long to be an answer."""
    with open_regular(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            if len(line) < LONGEST_LINE or line.endswith(b"\n"):
                if line.strip():
                    yield line
                continue
            while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield None
